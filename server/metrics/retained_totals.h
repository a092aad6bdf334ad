// The counters of VMs that are gone, so that the daemon's counters never go
// backwards.

#ifndef SERVER_METRICS_RETAINED_TOTALS_H_
#define SERVER_METRICS_RETAINED_TOTALS_H_

#include <cstdint>

#include "absl/types/optional.h"
#include "mmu_core/stats/vm_stats.h"

namespace mmud {

// The sum of several VMs' counters. A value.
struct RetainedTotals {
  // What is cumulative (mmu::AddWhatStays). What a VM has at present (pages,
  // tables) stays 0.
  mmu::VmStatsSnapshot stats;
  // Of VMs without series of their own; absent if none of these is gone.
  absl::optional<uint64_t> unlabelled_dirty_pages;
};

}  // namespace mmud

#endif  // SERVER_METRICS_RETAINED_TOTALS_H_
