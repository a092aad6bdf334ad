// Keeps the counters of deleted VMs, so that the daemon's counters never go
// backwards.

#ifndef SERVER_METRICS_RETAINED_TOTALS_H_
#define SERVER_METRICS_RETAINED_TOTALS_H_

#include <cstdint>

#include "absl/types/optional.h"
#include "mmu_core/stats/vm_stats.h"

namespace mmud {

// The sum of several VMs' counters. A value.
struct RetainedTotals {
  // Cumulative values only (mmu::AddWhatStays). Current values (pages, tables)
  // stay 0.
  mmu::VmStatsSnapshot stats;
  // Dirty pages of deleted VMs without series of their own; absent if there is
  // no such VM.
  absl::optional<uint64_t> unlabelled_dirty_pages;
};

}  // namespace mmud

#endif  // SERVER_METRICS_RETAINED_TOTALS_H_
