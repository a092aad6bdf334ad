// The counters of VMs that are gone, so that the daemon's counters never go
// backwards.

#ifndef SERVER_METRICS_RETAINED_TOTALS_H_
#define SERVER_METRICS_RETAINED_TOTALS_H_

#include <array>
#include <cstdint>

#include "absl/types/optional.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/inspect/vm_stats.h"

namespace mmud {

// The label `mmu` of a VM's series: kShadow for those that have shadow pages,
// whatever their TDP MMU does besides.
enum class MmuLabel { kTdp, kShadow };
inline constexpr int kMmuLabels = 2;

inline MmuLabel LabelOf(const mmu::VmConfig& config) {
  return config.mmu == mmu::MmuMode::kTdp ? MmuLabel::kTdp : MmuLabel::kShadow;
}

// The sum of several VMs' counters. A value. `vm_stats` holds only what is
// cumulative; what a VM has right now (pages, tables) stays 0.
struct RetainedTotals {
  mmu::MmuMetrics metrics;
  mmu::VmStatsSnapshot vm_stats;
  std::array<mmu::MmuMetrics, kMmuLabels> by_mmu;  // parts of `metrics`
  // Of VMs without series of their own; absent if none of these is gone.
  absl::optional<uint64_t> unlabelled_dirty_pages;
};

// Adds what is cumulative in the arguments.
void AddCounters(const mmu::MmuMetrics& from, mmu::MmuMetrics* to);
void AddCounters(const mmu::VmStatsSnapshot& from, mmu::VmStatsSnapshot* to);

}  // namespace mmud

#endif  // SERVER_METRICS_RETAINED_TOTALS_H_
