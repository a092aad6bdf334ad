#include "mmu_core/vm/logging/log_epochs.h"

#include <memory>

#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/clear_range.h"
#include "mmu_core/vm/logging/find_log.h"

namespace mmu {

absl::StatusOr<DirtyLogView> AcquireDirtyLog(VmCore& vm, const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             LogOwner::Acquired* acquired) {
  // Without this lock, a stop that was admitted before could end the new
  // owner's log.
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  // Filled in now except for the state, which is the only part that changes;
  // afterwards nothing may fail.
  DirtyLogView view;
  const absl::StatusOr<LogOwner::Acquired> how =
      WithMemory("vm", "hand the dirty log over", [&] {
        view = (*log)->View();
        return (*log)->log.Acquire(claim, log_id, force, now, &view.state);
      });
  if (!how.ok()) return how.status();
  if (acquired != nullptr) *acquired = *how;
  view.ttl_end = view.state.last_owner_call + view.ttl;
  return view;
}

absl::StatusOr<SealOutcome> SealDirtyLog(VmCore& vm, const LogCall& call,
                                         uint64_t acknowledged_epoch,
                                         MmuCost* cost) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  // Checked first, so that a refused call does not make vCPUs exit.
  if (absl::Status s = Admit(**log, call); !s.ok()) return s;
  SyncCpuDirtyLogs(vm, cost);
  if (absl::Status s = vm.mmus.CollectDirty(cost); !s.ok()) return s;
  return WithMemory("vm", "seal the dirty log", [&] {
    return HarvestAndSeal(vm, (*log)->log, call, acknowledged_epoch);
  });
}

absl::Status ReadDirtyLog(VmCore& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return OrNoSuchSlot(vm, slot,
                      (*log)->log.Read(log_id, slot, epoch, first_page, words));
}

absl::Status ReadInFlight(const VmCore& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return OrNoSuchSlot(
      vm, slot,
      (*log)->log.ReadInFlight(log_id, slot, epoch, first_page, words));
}

absl::Status CheckDirtyLogEpoch(const VmCore& vm, absl::optional<LogId> log_id,
                                uint64_t epoch, LogPages pages) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return (*log)->log.CheckEpoch(log_id, epoch, pages);
}

absl::StatusOr<AcknowledgeResult> AcknowledgePages(VmCore& vm,
                                                   const LogCall& call,
                                                   uint64_t epoch) {
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  return WithMemory("vm", "acknowledge pages",
                    [&] { return (*log)->log.Acknowledge(call, epoch); });
}

absl::StatusOr<AcknowledgeResult> AcknowledgePages(
    VmCore& vm, const LogCall& call, uint64_t epoch, uint32_t slot,
    uint64_t first_page, uint64_t page_count, absl::Span<const uint64_t> mask) {
  // Keeps the slot, so that the range stays within it.
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
  if (!log.ok()) return log.status();
  if (absl::Status s = Admit(**log, call); !s.ok()) return s;
  return WithMemory(
      "pages", "acknowledge pages", [&]() -> absl::StatusOr<AcknowledgeResult> {
        vm.slots.slots_lock.AssertHeld();
        const absl::StatusOr<const Memslot*> found =
            SlotForRange(vm, slot, first_page, page_count, mask.size());
        if (!found.ok()) return found.status();
        return (*log)->log.AcknowledgePages(call, epoch, slot, first_page,
                                            mask);
      });
}

}  // namespace mmu
