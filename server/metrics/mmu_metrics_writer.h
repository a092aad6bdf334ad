// The series about MMUs: locks, TLB, faults, splits, dirty logs, pages.

#ifndef SERVER_METRICS_MMU_METRICS_WRITER_H_
#define SERVER_METRICS_MMU_METRICS_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vm_stats.h"
#include "server/metrics/metric_writer.h"

namespace mmud {

// One existing VM with series of its own: the values that an operator looks up
// for one VM.
struct VmSeries {
  std::string vm;  // its name
  mmu::VmStatsSnapshot stats;
  // Window and bytes of its working set; empty before the first generation.
  std::vector<std::pair<std::string, uint64_t>> working_set = {};
};

// The totals of all VMs. Cumulative values include the VMs that are gone.
struct MmuTotals {
  mmu::VmStatsSnapshot stats;
  mmu::ProcessStatsSnapshot process;
  int64_t vms = 0;
  int64_t vcpus = 0;
  int64_t paused_vcpus = 0;
  int64_t logging_vms = 0;
  // Totals over all existing dirty logs.
  uint64_t sealed_pages = 0;
  uint64_t in_flight_pages = 0;
  uint64_t epochs_in_flight = 0;
  int64_t expired_leases = 0;
  absl::optional<double> oldest_undelivered_seconds;  // Unix time
  // Counted since the daemon began.
  uint64_t abandoned_logs = 0;
  uint64_t abandoned_pages = 0;
  int64_t agers = 0;  // that are on
  uint64_t ager_generations = 0;
  uint64_t ager_failures = 0;
  double ager_cpu_seconds = 0;
  int64_t splits_running = 0;
  int64_t split_remaining_bytes = 0;
  // Dirty pages of the VMs beyond the limit on VMs with series of their own.
  // Includes such VMs that are gone, so that the sum never falls; absent if
  // there were none.
  absl::optional<uint64_t> other_dirty_pages;
  std::vector<VmSeries> vm_series;
};

// Writes each counter of the table (mmu_core/stats/counter_table.h) that has a
// metric, and the daemon's other values about VMs.
void WriteMmuMetrics(const MmuTotals& totals, MetricWriter* writer);

}  // namespace mmud

#endif  // SERVER_METRICS_MMU_METRICS_WRITER_H_
