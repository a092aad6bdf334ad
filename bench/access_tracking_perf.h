// KVM's access_tracking_perf_test on this MMU: the same options, the same lines
// (TST-04, TST-31).
//
// vCPUs populate their memory, then write and read it once more as a control.
// Then they do both again after all of the memory was marked idle. Marking
// clears the Accessed bits, by ageing the pages or by a generation of the VM's
// working set. It also counts the pages that were accessed and still look idle.

#ifndef BENCH_ACCESS_TRACKING_PERF_H_
#define BENCH_ACCESS_TRACKING_PERF_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"

namespace mmu::bench {

struct AccessTrackingPerfOptions {
  bool help = false;                            // -h
  uint64_t bytes_per_vcpu = uint64_t{1} << 30;  // -b, page-aligned
  // -g: a generation marks the memory idle, as in KVM's test with MGLRU.
  bool generations = false;
  bool overlap = false;                           // -o
  BackingKind backing = BackingKind::kAnonymous;  // -s, with
  Level host_page_level = Level::k4K;             //     its page size
  int vcpus = 1;                                  // -v
  // -w, used if too many pages are still idle: above 0 the run warns, otherwise
  // it fails.
  int64_t warn = -1;
};

extern const char kAccessTrackingPerfHelp[];

// Returns the same errors as ParseDirtyLogPerf.
absl::StatusOr<AccessTrackingPerfOptions> ParseAccessTrackingPerf(
    absl::Span<const std::string> args);

// Runs the test and prints the lines as they come. Fails if guest memory cannot
// be allocated, or if 1 % of the pages or more are not mapped when they are
// marked. Without -w 1 also fails if 10 % of the pages or more are still idle
// after all were accessed.
absl::Status RunAccessTrackingPerf(const AccessTrackingPerfOptions& options,
                                   std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_ACCESS_TRACKING_PERF_H_
