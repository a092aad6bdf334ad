// Measures how much eager page splitting shortens the first pass of nested
// guests, for several shares of writes. The fewer writes, the more it helps,
// since it also avoids faults of reads (PERF-13 to PERF-16, PERF-92).

#ifndef BENCH_NESTED_SPLIT_PERF_H_
#define BENCH_NESTED_SPLIT_PERF_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace mmu::bench {

struct NestedSplitPerfOptions {
  bool help = false;                            // -h
  uint64_t bytes_per_vcpu = uint64_t{1} << 30;  // -b, page-aligned
  int repetitions = 5;                          // -i
  int max_vcpus = 2;                            // -v
};

extern const char kNestedSplitPerfHelp[];

// Returns the same errors as ParseDirtyLogPerf.
absl::StatusOr<NestedSplitPerfOptions> ParseNestedSplitPerf(
    absl::Span<const std::string> args);

// Runs dirty_log_perf -n -g with and without -E in turn, for 100, 50 and 5 % of
// writes and 1, 2, 4 ... vCPUs, and prints a table of medians. Fails if one of
// these runs fails. No time makes it fail.
absl::Status RunNestedSplitPerf(const NestedSplitPerfOptions& options,
                                std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_NESTED_SPLIT_PERF_H_
