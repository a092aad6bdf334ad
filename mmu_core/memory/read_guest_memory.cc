#include "mmu_core/memory/read_guest_memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/missing_frame.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

absl::Status NoContents(const Memslot& slot, const char* field) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {Reason::kNoContents, field, 0},
                   Format("slot %d has a metadata-only backing: its pages "
                          "have no contents",
                          slot.id));
}

void CopyWords(std::byte* memory, absl::Span<std::byte> out) {
  auto* from = reinterpret_cast<uint64_t*>(memory);
  auto* to = reinterpret_cast<uint64_t*>(out.data());
  for (size_t i = 0; i < out.size() / sizeof(uint64_t); ++i) {
    to[i] = std::atomic_ref<uint64_t>(from[i]).load(std::memory_order_relaxed);
  }
}

// Copies the part of `out` that lies in the slot at `gpa`. Returns the number
// of bytes copied, which is smaller than that part if `missing` has noted a
// frame. REQUIRES: an RCU read section.
absl::StatusOr<size_t> ReadFromSlot(const MemslotSet& set, Gpa gpa,
                                    absl::Span<std::byte> out,
                                    MissingFrame& missing) {
  const Memslot* slot = set.FindByGfn(ToGfn(gpa));
  if (slot == nullptr) {
    return MakeError(
        absl::StatusCode::kOutOfRange, {Reason::kGpaOutOfRange, "gpa", 0},
        Format("gpa 0x%x is in no memslot; read within the VM's memslots only",
               gpa.value()));
  }
  const Backing& backing = *slot->backing;
  if (!backing.has_contents()) return NoContents(*slot, "gpa");
  const uint64_t in_slot = gpa - ToGpa(slot->base_gfn);
  const size_t bytes =
      std::min<uint64_t>(out.size(), (slot->npages << kPageShift) - in_slot);
  if (!backing.is_borrowed()) {
    CopyWords(backing.PointerTo(slot->hva) + in_slot, out.subspan(0, bytes));
    return bytes;
  }
  const size_t done =
      backing.ReadBorrowed(slot->hva + in_slot, out.subspan(0, bytes));
  if (done < bytes) {
    missing.Note(*slot, ToGfn(gpa + done), AccessKind::kRead, /*sequence=*/0);
  }
  return done;
}

}  // namespace

absl::Status ReadGuestMemory(const MemslotTable& slots, Gpa gpa,
                             absl::Span<std::byte> out) {
  if (gpa.value() % 8 != 0 || out.size() % 8 != 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kUnaligned, "gpa", EINVAL},
                     Format("gpa 0x%x, %d bytes: both are multiples of "
                            "8",
                            gpa.value(), out.size()));
  }
  size_t done = 0;
  Gfn asked_for;
  size_t asks = 0;
  while (done < out.size()) {
    MissingFrame missing;  // new in each round: a page may be missing again
    {
      // The section keeps the slots and so their memory (SLOT-24).
      RcuReadGuard rcu;
      const MemslotSet& set = slots.Active(0);
      while (done < out.size() && !missing.noted()) {
        const absl::StatusOr<size_t> bytes =
            ReadFromSlot(set, gpa + done, out.subspan(done), missing);
        if (!bytes.ok()) return bytes.status();
        done += *bytes;
      }
    }
    if (!missing.noted()) break;
    const Gfn gfn = ToGfn(gpa + done);
    if (gfn != asked_for) asks = 0;
    asked_for = gfn;
    if (asks++ == kMaxAsksPerPage) {
      return FrameMissingError(
          gfn, Format("no page has come after %d requests", kMaxAsksPerPage));
    }
    if (absl::Status s = missing.Ask(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status CheckContents(const MemslotTable& slots,
                           const std::vector<GfnRange>& ranges) {
  RcuReadGuard rcu;
  const MemslotSet& set = slots.Active(0);
  for (const GfnRange range : ranges) {
    for (const Memslot* slot : set.SlotsIn(range)) {
      if (!slot->backing->has_contents()) return NoContents(*slot, "ranges");
    }
  }
  return absl::OkStatus();
}

}  // namespace mmu
