#include "mmu_core/vm/logging/log_stop.h"

#include <memory>
#include <utility>
#include <vector>

#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/vcpu_runner.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/find_log.h"
#include "mmu_core/vm/slots/region_hooks.h"

namespace mmu {
namespace {

// CheckStop, except that it throws if memory is short.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> FindLogToStop(
    VmCore& vm, const DirtyLogStop& stop, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  absl::StatusOr<std::shared_ptr<VmDirtyLog>> found = LogOf(vm);
  if (!found.ok()) return found;
  DirtyLog& log = (*found)->log;
  if (absl::Status s = log.CheckId(stop.log_id); !s.ok()) return s;
  if (stop.by.has_value()) {
    if (absl::Status s = log.Admit(*stop.by); !s.ok()) return s;
  }
  if (stop.undelivered == Undelivered::kRefuse) {
    if (absl::Status s = TakeInNotedPages(vm, cost); !s.ok()) return s;
    const UndeliveredCounts counts = log.CountUndelivered();
    if (!counts.none()) return UndeliveredPages(counts, "the VM");
  }
  return found;
}

// Returns the log to be stopped. Checks all reasons to refuse the stop. Changes
// nothing.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> CheckStop(VmCore& vm,
                                                      const DirtyLogStop& stop,
                                                      MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  return WithMemory("vm", "stop the dirty log", [&] {
    vm.slots.slots_lock.AssertHeld();
    return FindLogToStop(vm, stop, cost);
  });
}

// Switches the log off; returns the counts of the pages that are lost.
absl::StatusOr<UndeliveredCounts> SwitchLogOff(
    VmCore& vm, DirtyLog& log,
    const std::vector<MemslotTable::LoggedSlot>& slots, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  // The log gets the pages that were recorded until now. An MMU's error does
  // not prevent the stop: a caller that refuses to lose pages has got the error
  // from CheckStop.
  SyncCpuDirtyLogs(vm, cost);
  static_cast<void>(vm.mmus.CollectDirty(cost));
  RegionHooks hooks(vm, cost);
  if (absl::Status s =
          vm.slots.SwitchLogging(0, MemslotTable::Logging::kOff, slots, hooks,
                                 [&log] { log.Close(); });
      !s.ok()) {
    return s;
  }
  // No page is marked any more. The harvest must come while the log still
  // exists.
  HarvestDirtyRings(vm);
  UndeliveredCounts lost;
  for (const MemslotTable::LoggedSlot& slot : slots) {
    lost += log.CountUndelivered(slot.id);
  }
  vm.dirty_log.End();
  return lost;
}

absl::StatusOr<StopResult> StopLocked(VmCore& vm, DirtyLog& log,
                                      RecoverOnStop recover,
                                      absl::optional<HeldVcpus>& held,
                                      MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  std::vector<MemslotTable::LoggedSlot> slots;
  if (!TryWithMemory([&] {
        for (const std::shared_ptr<SlotLog>& slot : log.AllSlots()) {
          slots.push_back({slot->slot()});
        }
        return true;
      })) {
    return NoMemory("vm", "stop the dirty log");
  }
  AtHook(HookPoint::kCountToSwitch);
  const absl::StatusOr<UndeliveredCounts> lost =
      SwitchLogOff(vm, log, slots, cost);
  if (!lost.ok()) return lost.status();
  StopResult result;
  result.discarded = *lost;
  if (held.has_value()) held->LetGo();
  if (recover == RecoverOnStop::kYes) {
    RegionHooks hooks(vm, cost);
    for (const MemslotTable::LoggedSlot& slot : slots) {
      hooks.RecoverHugePages(*vm.slots.Active(0).FindById(slot.id));
    }
    result.recovered_2m_count = hooks.recovered().to_2m_count;
    result.recovered_1g_count = hooks.recovered().to_1g_count;
  }
  return result;
}

}  // namespace

absl::StatusOr<StopResult> StopDirtyLog(VmCore& vm, const DirtyLogStop& stop,
                                        MmuCost* cost) {
  absl::StatusOr<StopResult> result;
  RingReset reset;
  absl::optional<HeldVcpus> held;
  if (stop.undelivered == Undelivered::kRefuse) {
    // Most refusals happen here, without holding the vCPUs.
    MutexLock lock(vm.slots.slots_lock);
    const auto refused = CheckStop(vm, stop, cost);
    if (!refused.ok()) return refused.status();
  }
  // Without held vCPUs, a write between the check and the end of the log would
  // be lost. A caller that discards pages wants that write counted, too. A page
  // in a CPU's own log or in a descriptor is known only when these are looked
  // at, which must happen before the end.
  if (stop.undelivered == Undelivered::kRefuse ||
      WritesAreNotedElsewhere(vm.config)) {
    held.emplace(*vm.vcpu_runner);
  }
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log =
        CheckStop(vm, stop, cost);
    if (!log.ok()) return log.status();
    result = StopLocked(vm, (*log)->log, stop.recover, held, cost);
    if (!result.ok()) return result;
    reset = ResetDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, std::move(reset), cost);
  return result;
}

absl::optional<StopResult> StopAbandonedDirtyLog(VmCore& vm, MonotonicTime now,
                                                 DirtyLogView* view,
                                                 MmuCost* cost) {
  // Usually there is nothing to do, and the vCPUs need not be held.
  const auto is_over = [&](const VmDirtyLog* log) {
    if (log == nullptr) return false;
    *view = log->View();
    return now >= view->ttl_end;
  };
  if (!is_over(vm.dirty_log.Get().get())) return absl::nullopt;
  absl::StatusOr<StopResult> result;
  RingReset reset;
  absl::optional<HeldVcpus> held;
  // As in StopDirtyLog.
  if (WritesAreNotedElsewhere(vm.config)) held.emplace(*vm.vcpu_runner);
  {
    MutexLock lock(vm.slots.slots_lock);
    const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
    if (!is_over(log.get())) return absl::nullopt;
    result = StopLocked(vm, log->log, RecoverOnStop::kNo, held, cost);
    if (!result.ok()) return absl::nullopt;  // no memory: the next call retries
    reset = ResetDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, std::move(reset), cost);
  return *result;
}

}  // namespace mmu
