#include "mmu_core/vm/inspect/vm_metrics.h"

#include <algorithm>

#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/vm/core/shadow_page_limit.h"

namespace mmu {
namespace {

void AddLock(const VmCore& vm, VmStatsSnapshot& stats) {
  stats.lock = vm.mmu_lock.Snapshot();
  for (const auto& by_op : stats.lock.ops) {
    for (int op = 0; op < kLockOps; ++op) {
      stats.lock_hold_nanos[op] +=
          static_cast<uint64_t>(by_op[op].hold.sum_nanos);
    }
  }
}

void AddDirtyLog(const VmCore& vm, VmStatsSnapshot& stats) {
  for (const DirtyRing* ring : vm.rings) {
    stats.dirty_ring_entries += ring->size();
    stats.dirty_ring_used_entries += ring->used();
  }
  stats.vcpus_waiting_for_ring = static_cast<uint64_t>(VcpusWaitingForRing(vm));
  if (const auto log = vm.dirty_log.Get()) {
    for (const SlotLogState& slot : log->log.State().slots) {
      stats.undelivered_slots +=
          slot.sealed_page_count != 0 || slot.in_flight_page_count != 0;
    }
  }
}

}  // namespace

uint64_t MappedPages(const VmCore& vm, Level level) {
  return vm.counters.Leafs(level);
}

std::vector<VcpuStatsSnapshot> VcpuStatsOf(const VmCore& vm) {
  std::vector<VcpuStatsSnapshot> all;
  for (const VcpuStats* vcpu : vm.vcpu_stats) all.push_back(vcpu->Snapshot());
  return all;
}

ProcessStatsSnapshot StatsOfProcess() {
  const TablePool::Use tables = TablePool::Process().Snapshot();
  ProcessStatsSnapshot stats;
  stats.page_tables = {tables.in_use, tables.in_grace_period};
  stats.page_tables_limit = tables.max_tables;
  stats.page_table_waits = GracePeriodWaits();
  return stats;
}

int VcpusWaitingForRing(const VmCore& vm) {
  int waiting = 0;
  for (const VcpuStats* vcpu : vm.vcpu_stats) {
    waiting += vcpu->ring_full_wait.waiting() ? 1 : 0;
  }
  return waiting;
}

absl::optional<MonotonicTime> WaitingForRingSince(const VmCore& vm) {
  absl::optional<MonotonicTime> first;
  for (const VcpuStats* vcpu : vm.vcpu_stats) {
    const absl::optional<MonotonicTime> since = vcpu->ring_full_wait.since();
    if (since.has_value()) first = std::min(*since, first.value_or(*since));
  }
  return first;
}

VmStatsSnapshot StatsOf(const VmCore& vm) {
  VmStatsSnapshot stats;
  AddLock(vm, stats);
  stats.flush = vm.tlb.Snapshot();
  if (vm.tlbi.has_value()) {
    for (int kind = 0; kind < kTlbiKinds; ++kind) {
      stats.tlbi[kind] = vm.tlbi->Count(static_cast<TlbiKind>(kind));
    }
  }
  CopyCounters(vm.counters, &stats);
  AddDirtyLog(vm, stats);
  stats.nx_lpage_splits = vm.nx_huge_pages.count();
  stats.shadow_page_limit = ShadowPageLimit(vm);
  stats.guest_memory_bytes = vm.slots.total_pages() << kPageShift;
  for (const VcpuStats* vcpu : vm.vcpu_stats) {
    stats.vcpus.Add(vcpu->Snapshot());
  }
  return stats;
}

}  // namespace mmu
