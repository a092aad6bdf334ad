// The counters of VMs that are gone, so that the daemon's counters never go
// backwards.

#ifndef SERVER_RETAINED_TOTALS_H_
#define SERVER_RETAINED_TOTALS_H_

#include "mmu_core/vm/vm_stats.h"

namespace mmud {

// The sum of several VMs' counters. A value. `vm_stats` holds only what is
// cumulative; what a VM has right now (pages, tables) stays 0.
struct RetainedTotals {
  mmu::MmuMetrics metrics;
  mmu::VmStatsSnapshot vm_stats;
};

// Adds what is cumulative in the arguments.
void AddCounters(const mmu::MmuMetrics& from, mmu::MmuMetrics* to);
void AddCounters(const mmu::VmStatsSnapshot& from, mmu::VmStatsSnapshot* to);

}  // namespace mmud

#endif  // SERVER_RETAINED_TOTALS_H_
