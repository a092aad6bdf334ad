// One measurement: a workload, an interval, and the VMs whose estimates are
// compared with the truth.

#ifndef BENCH_WORKING_SET_ACCURACY_EXPERIMENT_H_
#define BENCH_WORKING_SET_ACCURACY_EXPERIMENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/working_set_accuracy/accuracy.h"
#include "bench/working_set_accuracy/tracked_vm.h"
#include "bench/working_set_accuracy/workloads.h"
#include "mmu_core/vm/jobs/generation_scan.h"

namespace mmu::bench {

// The windows whose working set is estimated, in generations.
inline constexpr std::array<uint32_t, 3> kWindows = {1, 4, 8};
inline constexpr uint32_t kMaxWindow = 8;

// A VM that measures. A value.
struct Tracker {
  TlbStaleness staleness;
  ScanScope scope = ScanScope::kEveryPage;
};

// A value.
struct Experiment {
  AccuracyWorkload workload;
  uint64_t pages = 0;                    // of 4 KiB, of the VM
  uint64_t accesses_per_generation = 0;  // the interval
  uint64_t first_access = 0;             // with which the measurement begins
  uint64_t measured_accesses = 0;        // at least one interval
  // Whether estimates are also compared with what is hot by design
  // (workloads.h).
  enum class Design : uint8_t { kUnknown, kKnown } design = Design::kUnknown;
};

// What one tracker measured. A value.
struct TrackerAccuracy {
  // The pages that the newest generation found young, and those that were
  // accessed in the interval before it; all generations together.
  SetOverlap hot;
  // The pages that one of the newest kWindows[i] generations found young, and
  // those that are hot by design at that time.
  std::array<SetOverlap, kWindows.size()> by_design;
  // The relative error of the number of pages that were accessed in kWindows[i]
  // generations.
  std::array<Mean, kWindows.size()> working_set;
  // The part of the pages that a scan examined.
  Mean examined;
};

// A value.
struct ExperimentResult {
  // The number of pages that were accessed in kWindows[i] intervals.
  std::array<Mean, kWindows.size()> accessed_pages;
  std::vector<TrackerAccuracy> trackers;  // in the order of the argument
};

// Gives the same accesses to all trackers. Each one makes a generation after
// each interval. The measurement is preceded by kMaxWindow generations that do
// not count. The same arguments have the same result. Fails if a trace cannot
// be read. REQUIRES: first_access is at least kMaxWindow intervals.
absl::StatusOr<ExperimentResult> RunExperiment(
    const Experiment& experiment, absl::Span<const Tracker> trackers);

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_EXPERIMENT_H_
