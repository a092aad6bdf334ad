// Measures what it costs to age the shadow MMU while vCPUs fault and zap in the
// same pages: by rmaps alone, as ShadowAge does, and with mmu_lock held
// besides. With more threads than processors, a thread may lose its processor
// while it holds the bit of an rmap; the table shows how long the others then
// wait.

#ifndef BENCH_RMAP_AGING_PERF_H_
#define BENCH_RMAP_AGING_PERF_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace mmu::bench {

struct RmapAgingPerfOptions {
  bool help = false;            // -h
  int repetitions = 5;          // -i
  int64_t milliseconds = 1000;  // -t
  int max_vcpus = 4;            // -v
};

extern const char kRmapAgingPerfHelp[];

// Errors: as ParseScenario.
absl::StatusOr<RmapAgingPerfOptions> ParseRmapAgingPerf(
    absl::Span<const std::string> args);

// Prints a table of medians: no vCPU, one, and max_vcpus, each with every way
// to age. Always OK: no time makes it fail.
absl::Status RunRmapAgingPerf(const RmapAgingPerfOptions& options,
                              std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_RMAP_AGING_PERF_H_
