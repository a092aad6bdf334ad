// KVM's memslot_perf_test on this MMU: the same options, sub-tests and lines
// (TST-07, TST-34).
//
// One vCPU works in a memory of many memslots, while the host maps, unmaps or
// moves parts of it. Each sub-test goes on for so many seconds; what counts is
// how long an iteration takes. Every value that the guest reads is checked.

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
  bool disable_quirk = false;  // -q: a moved slot takes its own leafs only
  int slots = 512;             // -s; -1 is as many as there can be
  int first_test = 0;          // -f
  int last_test = 5;           // -e
  absl::Duration length = absl::Seconds(5);  // -l, in seconds
  int runs = 1;                              // -r
};

extern const char kMemslotPerfHelp[];

// As ParseDirtyLogPerf.
absl::StatusOr<MemslotPerfOptions> ParseMemslotPerf(
    absl::Span<const std::string> args);

// Runs the sub-tests and prints the lines while it goes. Fails if guest memory
// is not to be had, or if somebody reads what was not written.
absl::Status RunMemslotPerf(const MemslotPerfOptions& options,
                            std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_MEMSLOT_PERF_H_
