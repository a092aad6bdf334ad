#include "mmu_core/vm/inspect/vm_metrics.h"

#include <algorithm>
#include <atomic>

#include "absl/time/time.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/stats/vm_counters.h"
#include "mmu_core/tlb/flush_metrics.h"
#include "mmu_core/vm/core/shadow_page_limit.h"

namespace mmu {

VmStatsSnapshot StatsOf(const VmCore& vm) {
  const FlushMetrics flush = vm.tlb.Snapshot();
  VmStatsSnapshot stats;
  stats.remote_tlb_flush = flush.remote_tlb_flush;
  stats.remote_tlb_flush_requests = flush.remote_tlb_flush_requests;
  stats.pages_4k = vm.counters.Leafs(Level::k4K);
  stats.pages_2m = vm.counters.Leafs(Level::k2M);
  stats.pages_1g = vm.counters.Leafs(Level::k1G);
  stats.table_pages = vm.counters.Tables();
  stats.nx_lpage_splits = vm.tdp.nx_huge_pages().count();
  const ShadowCounters& shadow = vm.counters.of(MmuKind::kShadow).shadow;
  stats.mmu_shadow_zapped = ShadowCounters::Get(shadow.mmu_shadow_zapped);
  stats.mmu_pte_write = ShadowCounters::Get(shadow.mmu_pte_write);
  stats.mmu_pde_zapped = ShadowCounters::Get(shadow.mmu_pde_zapped);
  stats.mmu_flooded = ShadowCounters::Get(shadow.mmu_flooded);
  stats.mmu_recycled = ShadowCounters::Get(shadow.mmu_recycled);
  stats.mmu_cache_miss = ShadowCounters::Get(shadow.mmu_cache_miss);
  stats.mmu_unsync = ShadowCounters::Get(shadow.mmu_unsync);
  stats.mmu_shadow_pages = ShadowCounters::Get(shadow.mmu_shadow_pages);
  stats.max_mmu_rmap_size = ShadowCounters::Get(shadow.max_mmu_rmap_size);
  stats.max_mmu_page_hash_collisions =
      ShadowCounters::Get(shadow.max_mmu_page_hash_collisions);
  stats.shadow_page_limit = ShadowPageLimit(vm);
  stats.guest_memory_bytes =
      static_cast<int64_t>(vm.slots.total_pages() << kPageShift);
  return stats;
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

MmuMetrics MetricsOf(const VmCore& vm) {
  const VmCounters& counters = vm.counters;
  MmuMetrics m;
  m.lock = vm.mmu_lock.Snapshot();
  m.flush = vm.tlb.Snapshot();
  for (const Level from : {Level::k2M, Level::k1G}) {
    for (int t = 0; t < kSplitTriggers; ++t) {
      m.splits[ToInt(from) - 2][t] =
          counters.Splits(from, static_cast<SplitTrigger>(t));
    }
  }
  for (const MmuKind kind : {MmuKind::kTdp, MmuKind::kShadow}) {
    const MmuCounters& of_mmu = counters.of(kind);
    for (const Level to : {Level::k2M, Level::k1G}) {
      m.recoveries[ToInt(to) - 2] += of_mmu.Recoveries(to);
    }
    for (int r = 0; r < kSplitFailures; ++r) {
      m.split_failures[r] += of_mmu.SplitFailures(static_cast<SplitFailure>(r));
    }
    m.rmap_lock_contended +=
        of_mmu.rmap_lock_contended.load(std::memory_order_relaxed);
  }
  for (const VcpuStats* vcpu : vm.vcpu_stats) m.vcpus.Add(vcpu->Snapshot());
  m.dirty_pages = m.vcpus.dirty_pages;
  m.harvested_pages = counters.harvested_pages.load(std::memory_order_relaxed);
  m.cleared_pages = counters.cleared_pages.load(std::memory_order_relaxed);
  for (const DirtyRing* ring : vm.rings) {
    m.dirty_ring_entries += ring->size();
    m.dirty_ring_used_entries += ring->used();
  }
  m.vcpus_waiting_for_ring = static_cast<uint64_t>(VcpusWaitingForRing(vm));
  if (const auto log = vm.dirty_log.Get()) {
    for (const SlotLogState& slot : log->log.State().slots) {
      m.undelivered_slots +=
          slot.sealed_page_count != 0 || slot.in_flight_page_count != 0;
    }
  }
  m.aged_young = counters.aged_young.load(std::memory_order_relaxed);
  m.aged_old = counters.aged_old.load(std::memory_order_relaxed);
  m.split_chunk = counters.split_chunk.Snapshot();
  m.dirty_log_start = counters.dirty_log_start.Snapshot();
  m.dirty_log_seal = counters.dirty_log_seal.Snapshot();
  m.dirty_log_clear = counters.dirty_log_clear.Snapshot();
  m.aging = counters.aging.Snapshot();
  for (size_t i = 0; i < m.split_throttled.size(); ++i) {
    m.split_throttled[i] = absl::Nanoseconds(
        counters.split_throttled_nanos[i].load(std::memory_order_relaxed));
  }
  return m;
}

}  // namespace mmu
