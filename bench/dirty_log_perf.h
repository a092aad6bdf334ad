// KVM's dirty_log_perf_test on this MMU: the same options and the same lines,
// so the two can be compared side by side (TST-01, TST-30).
//
// vCPUs populate their memory, logging is switched on, then each iteration
// dirties the memory, gets the log and, with manual protection, clears it.
// Every step is timed. No time makes the run fail. With -n, L2 guests access
// the memory, and L1 maps it for them with pages of 1 GiB.

#ifndef BENCH_DIRTY_LOG_PERF_H_
#define BENCH_DIRTY_LOG_PERF_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"

namespace mmu::bench {

struct DirtyLogPerfOptions {
  bool help = false;                              // -h
  bool random_access = false;                     // -a
  uint64_t bytes_per_vcpu = uint64_t{1} << 30;    // -b, page-aligned
  std::vector<int> cpus;                          // -c, one per vCPU or none
  bool run_while_disabling = false;               // -e
  bool legacy_get = false;                        // -g
  uint64_t iterations = 2;                        // -i, 2 or more
  bool overlap = false;                           // -o
  uint64_t offset_bytes = uint64_t{1} << 30;      // -p, page-aligned
  uint64_t seed = 1;                              // -r
  BackingKind backing = BackingKind::kAnonymous;  // -s, with
  Level host_page_level = Level::k4K;             //     its page size
  int vcpus = 1;                                  // -v
  uint32_t write_percent = 100;                   // -w, 0..100
  uint32_t slots = 1;                             // -x, 1..32
  bool eager_page_split = true;                   // -E turns it off
  bool nested = false;                            // -n
};

extern const char kDirtyLogPerfHelp[];

// `args` does not contain the program's name. Returns INVALID_ARGUMENT with the
// option, its value and the rule.
absl::StatusOr<DirtyLogPerfOptions> ParseDirtyLogPerf(
    absl::Span<const std::string> args);

// Runs the test and prints the lines as they come. Fails if guest memory cannot
// be allocated, or if a written page is not in the log.
absl::Status RunDirtyLogPerf(const DirtyLogPerfOptions& options,
                             std::ostream& out);

// Results of a run, for comparison with other runs.
struct DirtyLogPerfTimes {
  absl::Duration enable;
  absl::Duration first_dirty;  // the vCPUs' pass of iteration 1
  // Of all iterations: pages that the vCPUs wrote, each counted once in an
  // iteration; pages that the logs had.
  uint64_t pages_written = 0;
  uint64_t pages_logged = 0;
};
// As RunDirtyLogPerf, and returns the results.
absl::StatusOr<DirtyLogPerfTimes> MeasureDirtyLogPerf(
    const DirtyLogPerfOptions& options, std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_DIRTY_LOG_PERF_H_
