#include "mmu_core/vm/inspect/vm_metrics.h"

#include <algorithm>
#include <atomic>

#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/stats/vm_counters.h"
#include "mmu_core/vm/core/shadow_page_limit.h"

namespace mmu {
namespace {

uint64_t Load(const std::atomic<uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

void AddLock(const VmCore& vm, VmStatsSnapshot& stats) {
  stats.lock = vm.mmu_lock.Snapshot();
  for (const auto& by_op : stats.lock.ops) {
    for (int op = 0; op < kLockOps; ++op) {
      stats.lock_hold_nanos[op] +=
          static_cast<uint64_t>(by_op[op].hold.sum_nanos);
    }
  }
}

// What one MMU counts, into its own part of the snapshot and into what all of
// them have together.
void AddMmu(const MmuCounters& counters, MmuStatsSnapshot& mmu,
            VmStatsSnapshot& stats) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    mmu.leafs[ToInt(level) - 1] = counters.Leafs(level);
  }
  mmu.tables = counters.Tables();
  stats.pages_4k += mmu.leafs[0];
  stats.pages_2m += mmu.leafs[1];
  stats.pages_1g += mmu.leafs[2];
  stats.table_pages += mmu.tables;
  for (const Level level : {Level::k2M, Level::k1G}) {
    const int size = ToInt(level) - 2;
    for (int t = 0; t < kSplitTriggers; ++t) {
      mmu.splits[size][t] =
          counters.Splits(level, static_cast<SplitTrigger>(t));
    }
    stats.recoveries[size] += counters.Recoveries(level);
  }
  for (int r = 0; r < kSplitFailures; ++r) {
    stats.split_failures[r] +=
        counters.SplitFailures(static_cast<SplitFailure>(r));
  }
  stats.rmap_lock_contended += Load(counters.rmap_lock_contended);
}

void AddShadowMmu(const VmCore& vm, VmStatsSnapshot& stats) {
  const ShadowCounters& shadow = vm.counters.of(MmuKind::kShadow).shadow;
  stats.mmu_shadow_zapped = Load(shadow.mmu_shadow_zapped);
  stats.mmu_pte_write = Load(shadow.mmu_pte_write);
  stats.mmu_pde_zapped = Load(shadow.mmu_pde_zapped);
  stats.mmu_flooded = Load(shadow.mmu_flooded);
  stats.mmu_recycled = Load(shadow.mmu_recycled);
  stats.mmu_cache_miss = Load(shadow.mmu_cache_miss);
  stats.mmu_unsync = Load(shadow.mmu_unsync);
  stats.mmu_shadow_pages = Load(shadow.mmu_shadow_pages);
  stats.max_mmu_rmap_size = Load(shadow.max_mmu_rmap_size);
  stats.max_mmu_page_hash_collisions =
      Load(shadow.max_mmu_page_hash_collisions);
  stats.shadow_page_limit = ShadowPageLimit(vm);
}

void AddVmCounters(const VmCore& vm, VmStatsSnapshot& stats) {
  const VmCounters& counters = vm.counters;
  stats.harvested_pages = Load(counters.harvested_pages);
  stats.cleared_pages = Load(counters.cleared_pages);
  stats.mmus[static_cast<int>(vm.guest_mmu())].aged = {
      Load(counters.aged_young), Load(counters.aged_old)};
  stats.split_chunk = counters.split_chunk.Snapshot();
  stats.dirty_log_start = counters.dirty_log_start.Snapshot();
  stats.dirty_log_seal = counters.dirty_log_seal.Snapshot();
  stats.dirty_log_clear = counters.dirty_log_clear.Snapshot();
  stats.aging = counters.aging.Snapshot();
  for (int i = 0; i < kThrottleLimits; ++i) {
    stats.split_throttled_nanos[i] = static_cast<uint64_t>(
        counters.split_throttled_nanos[i].load(std::memory_order_relaxed));
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
  for (int i = 0; i < kMmuKinds; ++i) {
    AddMmu(vm.counters.of(static_cast<MmuKind>(i)), stats.mmus[i], stats);
  }
  AddShadowMmu(vm, stats);
  AddVmCounters(vm, stats);
  AddDirtyLog(vm, stats);
  stats.nx_lpage_splits = vm.nx_huge_pages.count();
  stats.guest_memory_bytes = vm.slots.total_pages() << kPageShift;
  for (const VcpuStats* vcpu : vm.vcpu_stats) {
    stats.vcpus.Add(vcpu->Snapshot());
  }
  return stats;
}

}  // namespace mmu
