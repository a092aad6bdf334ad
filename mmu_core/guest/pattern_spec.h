// The parameters of a synthetic workload.

#ifndef MMU_CORE_GUEST_PATTERN_SPEC_H_
#define MMU_CORE_GUEST_PATTERN_SPEC_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace mmu {

// A value. The same spec, space and vCPU always give the same accesses.
struct PatternSpec {
  enum class Kind : uint8_t {
    kSequential,  // each vCPU walks its own share, over and over
    kUniform,     // every page is equally likely
    kZipf,        // few pages get most accesses; they lie scattered
    kHotCold,     // one contiguous hot window, which may move
  };

  Kind kind = Kind::kUniform;

  // The fractions of accesses that write and fetch; the rest read. Each in [0,
  // 1], together at most 1.
  double write_fraction = 0.5;
  double exec_fraction = 0;

  uint64_t seed = 1;
  // Per vCPU; 0 means unbounded.
  uint64_t access_count = 0;

  // The part of the space to use: page-aligned; size 0 means up to the end.
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;

  // kSequential: distance between accesses, a multiple of 8.
  uint64_t stride_bytes = 4096;

  // kZipf: in (0, 10].
  double zipf_exponent = 0.99;

  // kHotCold: the fraction of pages that are hot, in (0, 1], and the fraction
  // of accesses to hot pages, in [0, 1].
  double hot_fraction = 0.1;
  double hot_access_fraction = 0.9;
  // kHotCold: how many pages the window moves up per million accesses of this
  // vCPU.
  uint64_t drift_pages_per_million_accesses = 0;
};

// "sequential", "uniform", "zipf", "hot_cold".
std::string_view ToString(PatternSpec::Kind kind);

// INVALID_ARGUMENT naming the field, its value, the rule and the fix, if a
// pattern cannot run on `vcpu_count` vCPUs in a space of `space_bytes`.
absl::Status Validate(const PatternSpec& spec, uint64_t space_bytes,
                      uint32_t vcpu_count);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PATTERN_SPEC_H_
