#include "mmu_core/vm/logging/logged_memslot.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/vcpu_runner.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/slots/set_memslot.h"

namespace mmu {
namespace {

// Returns whether the slot logs. If it logs and has undelivered pages, returns
// FAILED_PRECONDITION UNDELIVERED_PAGES. Changes nothing.
absl::StatusOr<bool> CheckDelivered(VmCore& vm, uint32_t slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
  if (log == nullptr || log->log.Find(slot) == nullptr) return false;
  const absl::Status status =
      WithMemory("name", "look at the log of a memslot", [&] {
        vm.slots.slots_lock.AssertHeld();
        if (absl::Status s = TakeInNotedPages(vm, /*cost=*/nullptr); !s.ok()) {
          return s;
        }
        const UndeliveredCounts counts = log->log.CountUndelivered(slot);
        if (counts.none()) return absl::OkStatus();
        return UndeliveredPages(counts, absl::StrCat("slot ", slot));
      });
  if (!status.ok()) return status;
  return true;
}

// The result of a deletion that was not refused.
enum class Deleted : uint8_t {
  kYes,
  kOnlyIfHeld,  // not deleted: the caller must hold the vCPUs first
};

}  // namespace

absl::Status SetMemslot(VmCore& vm, const MemslotConfig& config) {
  RingReset reset;
  UndeliveredCounts lost;
  {
    MutexLock lock(vm.slots.slots_lock);
    if (absl::Status s = SetMemslotLocked(vm, config, &lost); !s.ok()) return s;
    // Perhaps no owner is left to clear what was harvested.
    if (config.size_bytes == 0) reset = ResetDirtyRingsLocked(vm, nullptr);
  }
  FinishDirtyRingReset(vm, std::move(reset), nullptr);
  return absl::OkStatus();
}

absl::StatusOr<UndeliveredCounts> DeleteMemslot(VmCore& vm, uint32_t slot,
                                                Undelivered undelivered) {
  RingReset reset;
  UndeliveredCounts lost;
  absl::optional<HeldVcpus> held;
  const auto try_to_delete = [&]() -> absl::StatusOr<Deleted> {
    MutexLock lock(vm.slots.slots_lock);
    if (undelivered == Undelivered::kRefuse) {
      const absl::StatusOr<bool> logs = CheckDelivered(vm, slot);
      if (!logs.ok()) return logs.status();
      // A write between the check and the slot's end would be lost.
      if (*logs && !held.has_value()) return Deleted::kOnlyIfHeld;
      if (!*logs) held.reset();
    }
    MemslotConfig nothing;
    nothing.slot = slot;
    nothing.size_bytes = 0;
    if (absl::Status s = SetMemslotLocked(vm, nothing, &lost); !s.ok()) {
      return s;
    }
    // Perhaps no owner is left to clear what was harvested.
    reset = ResetDirtyRingsLocked(vm, nullptr);
    return Deleted::kYes;
  };
  // Usually the deletion is refused here, or the slot does not log, and the
  // vCPUs need not be held.
  absl::StatusOr<Deleted> deleted = try_to_delete();
  if (deleted.ok() && *deleted == Deleted::kOnlyIfHeld) {
    held.emplace(*vm.vcpu_runner);
    deleted = try_to_delete();
  }
  if (!deleted.ok()) return deleted.status();
  FinishDirtyRingReset(vm, std::move(reset), nullptr);
  return lost;
}

}  // namespace mmu
