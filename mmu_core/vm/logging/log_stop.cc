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

// Of CheckStop, without its care for memory.
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
    TakeInNotedPages(vm, cost);
    const UndeliveredCounts counts = log.CountUndelivered();
    if (!counts.none()) return UndeliveredPages(counts, "the VM");
  }
  return found;
}

// The log that is to be stopped. Everything that can refuse a stop is looked at
// here, and nothing is changed.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> CheckStop(VmCore& vm,
                                                      const DirtyLogStop& stop,
                                                      MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  return WithMemory("vm", "stop the dirty log", [&] {
    vm.slots.slots_lock.AssertHeld();
    return FindLogToStop(vm, stop, cost);
  });
}

// Switches the log off; returns what is lost by that.
absl::StatusOr<UndeliveredCounts> SwitchLogOff(
    VmCore& vm, DirtyLog& log,
    const std::vector<MemslotTable::LoggedSlot>& slots, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  // What the CPUs have noted until here belongs to the log.
  SyncCpuDirtyLogs(vm, cost);
  RegionHooks hooks(vm, cost);
  if (absl::Status s =
          vm.slots.SwitchLogging(0, MemslotTable::Logging::kOff, slots, hooks,
                                 [&log] { log.Close(); });
      !s.ok()) {
    return s;
  }
  // Nobody marks any more; a harvest finds the log as long as it is there.
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
  uint64_t reset = 0;
  absl::optional<HeldVcpus> held;
  if (stop.undelivered == Undelivered::kRefuse) {
    // Mostly it is here that a stop is refused, and nobody had to stand still
    // for it.
    MutexLock lock(vm.slots.slots_lock);
    const auto refused = CheckStop(vm, stop, cost);
    if (!refused.ok()) return refused.status();
  }
  // What a vCPU writes between the look and the end would be lost. Who discards
  // wants it counted: a CPU's own log tells of a page when it is taken in, and
  // after the end there is no log that would count it.
  if (stop.undelivered == Undelivered::kRefuse ||
      vm.config.pml == VmConfig::Pml::kYes) {
    held.emplace(*vm.vcpu_runner);
  }
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log =
        CheckStop(vm, stop, cost);
    if (!log.ok()) return log.status();
    result = StopLocked(vm, (*log)->log, stop.recover, held, cost);
    if (!result.ok()) return result;
    reset = ReclaimDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, reset, cost);
  return result;
}

absl::optional<StopResult> StopAbandonedDirtyLog(VmCore& vm, MonotonicTime now,
                                                 DirtyLogView* view,
                                                 MmuCost* cost) {
  // Mostly there is nothing to do, and nobody has to stand still for it.
  const auto is_over = [&](const VmDirtyLog* log) {
    if (log == nullptr) return false;
    *view = log->View();
    return now >= view->ttl_end;
  };
  if (!is_over(vm.dirty_log.Get().get())) return absl::nullopt;
  absl::StatusOr<StopResult> result;
  uint64_t reset = 0;
  absl::optional<HeldVcpus> held;
  // As in StopDirtyLog.
  if (vm.config.pml == VmConfig::Pml::kYes) held.emplace(*vm.vcpu_runner);
  {
    MutexLock lock(vm.slots.slots_lock);
    const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.Get();
    if (!is_over(log.get())) return absl::nullopt;
    result = StopLocked(vm, log->log, RecoverOnStop::kNo, held, cost);
    if (!result.ok()) return absl::nullopt;  // no memory; the next time
    reset = ReclaimDirtyRingsLocked(vm, cost);
  }
  FinishDirtyRingReset(vm, reset, cost);
  return *result;
}

}  // namespace mmu
