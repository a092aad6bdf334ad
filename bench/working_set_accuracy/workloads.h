// The workloads of the measurements, and what is known of them in advance.

#ifndef BENCH_WORKING_SET_ACCURACY_WORKLOADS_H_
#define BENCH_WORKING_SET_ACCURACY_WORKLOADS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/pattern_spec.h"

namespace mmu::bench {

// A value. At most one of `pattern` and `trace_path` is set; without either,
// the guest is idle and makes no access.
struct AccuracyWorkload {
  std::string name;  // for tables
  std::optional<PatternSpec> pattern;
  std::string trace_path;  // a file of traces/, replayed again and again
};

// The part of the pages of a pattern that are hot by design.
inline constexpr double kHotFraction = 0.1;

// 90 % of the accesses go to 10 % of the pages, which lie together. In
// `Drifting`, these pages move on by 20 pages in 1,000 accesses.
AccuracyWorkload HotCold();
AccuracyWorkload DriftingHotCold();
// The exponent is 0.99, the pages are scattered.
AccuracyWorkload Zipf();
// All of the above, controls, and the recordings in the folder `traces`.
std::vector<AccuracyWorkload> AllWorkloads(const std::string& traces);

// The source of the accesses of a vCPU, which never ends unless the guest is
// idle. Fails if a trace cannot be opened.
absl::StatusOr<std::unique_ptr<AccessSource>> OpenWorkload(
    const AccuracyWorkload& workload, const GpaSpace& space);

// By page, whether the page is hot by design after `accesses` accesses: with a
// hot/cold pattern whether it is in the hot window, with a zipf pattern whether
// it is one of the most popular kHotFraction. REQUIRES: the workload is one of
// these patterns in a space of `pages` pages.
std::vector<bool> HotByDesign(const AccuracyWorkload& workload, uint64_t pages,
                              uint64_t accesses);

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_WORKLOADS_H_
