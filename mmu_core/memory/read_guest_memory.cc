#include "mmu_core/memory/read_guest_memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

absl::Status ReadGuestMemory(const MemslotTable& slots, Gpa gpa,
                             absl::Span<std::byte> out) {
  if (gpa.value() % 8 != 0 || out.size() % 8 != 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {"UNALIGNED", "gpa_bytes", EINVAL},
                     Format("gpa 0x%x, %d bytes: both are multiples of "
                            "8",
                            gpa.value(), out.size()));
  }
  // The section keeps the slots and so their memory (SLOT-24).
  RcuReadGuard rcu;
  const MemslotSet& set = slots.Active(0);
  size_t done = 0;
  while (done < out.size()) {
    const Gpa at = gpa + done;
    const Memslot* slot = set.FindByGfn(ToGfn(at));
    if (slot == nullptr) {
      return MakeError(
          absl::StatusCode::kOutOfRange, {"GPA_OUT_OF_RANGE", "extents", 0},
          Format("gpa 0x%x is in no memslot; read only what the VM's "
                 "memslots cover",
                 at.value()));
    }
    if (!slot->backing->has_contents()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {"NO_CONTENTS", "extents", 0},
                       Format("slot %d has a metadata-only backing: "
                              "its pages have no contents",
                              slot->id));
    }
    const uint64_t in_slot = at - ToGpa(slot->base_gfn);
    const size_t bytes = std::min<uint64_t>(
        out.size() - done, (slot->npages << kPageShift) - in_slot);
    auto* from = reinterpret_cast<uint64_t*>(
        slot->backing->PointerTo(slot->hva) + in_slot);
    auto* to = reinterpret_cast<uint64_t*>(out.data() + done);
    for (size_t i = 0; i < bytes / 8; ++i) {
      to[i] =
          std::atomic_ref<uint64_t>(from[i]).load(std::memory_order_relaxed);
    }
    done += bytes;
  }
  return absl::OkStatus();
}

}  // namespace mmu
