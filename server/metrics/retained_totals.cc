#include "server/metrics/retained_totals.h"

#include <cstddef>

#include "mmu_core/vm/inspect/vm_stats.h"

namespace mmud {
namespace {

template <typename Array>
void AddEach(const Array& from, Array* to) {
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
}

}  // namespace

void AddCounters(const mmu::MmuMetrics& from, mmu::MmuMetrics* to) {
  to->lock.Add(from.lock);
  to->flush.Add(from.flush);
  for (size_t i = 0; i < from.splits.size(); ++i) {
    AddEach(from.splits[i], &to->splits[i]);
  }
  AddEach(from.split_failures, &to->split_failures);
  AddEach(from.recoveries, &to->recoveries);
  to->rmap_lock_contended += from.rmap_lock_contended;
  to->dirty_pages += from.dirty_pages;
  to->harvested_pages += from.harvested_pages;
  to->cleared_pages += from.cleared_pages;
  to->aged_young += from.aged_young;
  to->aged_old += from.aged_old;
  to->split_chunk.Add(from.split_chunk);
  to->dirty_log_start.Add(from.dirty_log_start);
  to->dirty_log_seal.Add(from.dirty_log_seal);
  to->dirty_log_clear.Add(from.dirty_log_clear);
  to->aging.Add(from.aging);
  AddEach(from.split_throttled, &to->split_throttled);
  to->vcpus.Add(from.vcpus);
}

void AddCounters(const mmu::VmStatsSnapshot& from, mmu::VmStatsSnapshot* to) {
  to->mmu_shadow_zapped += from.mmu_shadow_zapped;
  to->mmu_pte_write += from.mmu_pte_write;
  to->mmu_pde_zapped += from.mmu_pde_zapped;
  to->mmu_flooded += from.mmu_flooded;
  to->mmu_recycled += from.mmu_recycled;
  to->mmu_cache_miss += from.mmu_cache_miss;
}

}  // namespace mmud
