// KVM's mmu_stress_test on this MMU: the same options, the same last line
// (TST-06, TST-33).
//
// vCPUs write all of a large memory (run1), drop their roots and translations
// (reset), and write again (run2). They go on until the host has made the
// memory read-only and a write fails with EFAULT (ro), and write again when the
// memory is writable (rw). At the end every other slot is deleted, and half of
// the rest is unmapped, while the vCPUs run.

#ifndef BENCH_MMU_STRESS_H_
#define BENCH_MMU_STRESS_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"

namespace mmu::bench {

struct MmuStressOptions {
  bool help = false;                            // -h
  int vcpus = 2;                                // -c
  uint64_t memory_bytes = uint64_t{128} << 30;  // -m, in GiB
  uint64_t slot_bytes = uint64_t{2} << 30;      // -s, in GiB; divides memory
  bool huge_pages = false;                      // -H: the host maps with 2 MiB
  // The default has no contents, so the guest may be larger than the host. With
  // another kind the contents are verified.
  BackingKind backing = BackingKind::kMetadataOnly;
};

extern const char kMmuStressHelp[];

// Returns the same errors as ParseDirtyLogPerf.
absl::StatusOr<MmuStressOptions> ParseMmuStress(
    absl::Span<const std::string> args);

// Runs the test and prints the time of each stage. Fails if guest memory cannot
// be allocated, if an access does not end as its stage requires, if contents
// are wrong, or if the auditor finds an error at the end.
absl::Status RunMmuStress(const MmuStressOptions& options, std::ostream& out);

}  // namespace mmu::bench

#endif  // BENCH_MMU_STRESS_H_
