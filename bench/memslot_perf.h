// KVM's memslot_perf_test on this MMU: the same options, sub-tests and lines
// (TST-07, TST-34).
//
// One vCPU accesses memory that consists of many memslots, while the host maps,
// unmaps or moves parts of it. Each sub-test runs for a given number of seconds
// and measures the time of an iteration. Every value that the guest reads is
// checked.

#ifndef BENCH_MEMSLOT_PERF_H_
#define BENCH_MEMSLOT_PERF_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace mmu::bench {

struct MemslotPerfOptions {
  bool help = false;           // -h
  bool verbose = false;        // -v: how the memory is cut into slots
  bool debug_checks = false;   // -d: the host checks contents too
  bool disable_quirk = false;  // -q: zap only the leafs of a moved slot
  int slots = 512;             // -s; -1 is the maximum number
  int first_test = 0;          // -f
  int last_test = 5;           // -e
  absl::Duration length = absl::Seconds(5);  // -l, in seconds
  int runs = 1;                              // -r
};

extern const char kMemslotPerfHelp[];

// Returns the same errors as ParseDirtyLogPerf.
absl::StatusOr<MemslotPerfOptions> ParseMemslotPerf(
    absl::Span<const std::string> args);

// Runs the sub-tests and prints the lines as they come. Fails if guest memory
// cannot be allocated, or if a read returns anything but the last write.
absl::Status RunMemslotPerf(const MemslotPerfOptions& options,
                            std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_MEMSLOT_PERF_H_
