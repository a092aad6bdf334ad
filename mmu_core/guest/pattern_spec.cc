#include "mmu_core/guest/pattern_spec.h"

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/address.h"

namespace mmu {
namespace {

constexpr uint64_t kWordBytes = 8;

template <typename Value>
absl::Status Bad(absl::string_view field, Value value, absl::string_view rule,
                 absl::string_view fix) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ": ", rule, "; ", fix));
}

// NaN compares false and so fails.
bool InUnitInterval(double x) { return x >= 0 && x <= 1; }

absl::Status ValidateMix(const PatternSpec& spec) {
  if (!InUnitInterval(spec.write_fraction)) {
    return Bad("write_fraction", spec.write_fraction, "must be between 0 and 1",
               "use 0.5 for half writes");
  }
  if (!InUnitInterval(spec.exec_fraction)) {
    return Bad("exec_fraction", spec.exec_fraction, "must be between 0 and 1",
               "use 0 for no instruction fetches");
  }
  if (spec.write_fraction + spec.exec_fraction > 1 + 1e-9) {
    return Bad("write_fraction + exec_fraction",
               spec.write_fraction + spec.exec_fraction, "must be at most 1",
               "lower one of them");
  }
  return absl::OkStatus();
}

absl::Status ValidateRegion(const PatternSpec& spec, uint64_t space_bytes) {
  if (space_bytes == 0) {
    return Bad("guest memory size", space_bytes,
               "a pattern needs at least one page", "add a memslot first");
  }
  if (!IsPageAligned(spec.offset_bytes)) {
    return Bad("offset_bytes", spec.offset_bytes, "must be a multiple of 4096",
               "round it to a page");
  }
  if (!IsPageAligned(spec.size_bytes)) {
    return Bad("size_bytes", spec.size_bytes, "must be a multiple of 4096",
               "round it to a page, or use 0 for all");
  }
  if (spec.offset_bytes >= space_bytes) {
    return Bad(
        "offset_bytes", spec.offset_bytes,
        absl::StrCat("must be below the guest memory size of ", space_bytes),
        "lower it or add memory");
  }
  const uint64_t rest = space_bytes - spec.offset_bytes;
  if (spec.size_bytes > rest) {
    return Bad("size_bytes", spec.size_bytes,
               absl::StrCat("only ", rest,
                            " bytes of guest memory lie behind "
                            "offset_bytes ",
                            spec.offset_bytes),
               "lower it, or use 0 for all");
  }
  return absl::OkStatus();
}

absl::Status ValidateSequential(const PatternSpec& spec, uint64_t region_pages,
                                uint32_t vcpu_count) {
  if (region_pages < vcpu_count) {
    return Bad("vCPU count", vcpu_count,
               absl::StrCat("a sequential pattern gives each vCPU a share of "
                            "its own, and there are only ",
                            region_pages, " pages"),
               "use fewer vCPUs or more memory");
  }
  const uint64_t smallest_share = region_pages / vcpu_count << kPageShift;
  if (spec.stride_bytes == 0 || spec.stride_bytes % kWordBytes != 0) {
    return Bad("stride_bytes", spec.stride_bytes,
               "must be a positive multiple of 8",
               "use 4096 for one access per page");
  }
  if (spec.stride_bytes > smallest_share) {
    return Bad("stride_bytes", spec.stride_bytes,
               absl::StrCat("must not exceed the share of a vCPU, ",
                            smallest_share, " bytes"),
               "lower it or use more memory");
  }
  return absl::OkStatus();
}

absl::Status ValidateHotCold(const PatternSpec& spec) {
  if (!(spec.hot_fraction > 0 && spec.hot_fraction <= 1)) {
    return Bad("hot_fraction", spec.hot_fraction,
               "must be above 0 and at most 1",
               "use 0.1 for a tenth of the pages");
  }
  if (!InUnitInterval(spec.hot_access_fraction)) {
    return Bad("hot_access_fraction", spec.hot_access_fraction,
               "must be between 0 and 1", "use 0.9 for nine in ten accesses");
  }
  constexpr uint64_t kMaxDrift = 1'000'000'000'000;
  if (spec.drift_pages_per_million_accesses > kMaxDrift) {
    return Bad("drift_pages_per_million_accesses",
               spec.drift_pages_per_million_accesses,
               absl::StrCat("must be at most ", kMaxDrift),
               "lower it; the window wraps around anyway");
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view ToString(PatternSpec::Kind kind) {
  switch (kind) {
    case PatternSpec::Kind::kSequential:
      return "sequential";
    case PatternSpec::Kind::kUniform:
      return "uniform";
    case PatternSpec::Kind::kZipf:
      return "zipf";
    case PatternSpec::Kind::kHotCold:
      return "hot_cold";
  }
  return "invalid";
}

absl::Status Validate(const PatternSpec& spec, uint64_t space_bytes,
                      uint32_t vcpu_count) {
  if (vcpu_count == 0) {
    return Bad("vCPU count", vcpu_count, "must be at least 1",
               "run the pattern on some vCPU");
  }
  if (absl::Status status = ValidateMix(spec); !status.ok()) return status;
  if (absl::Status status = ValidateRegion(spec, space_bytes); !status.ok()) {
    return status;
  }
  const uint64_t region_bytes =
      spec.size_bytes != 0 ? spec.size_bytes : space_bytes - spec.offset_bytes;
  switch (spec.kind) {
    case PatternSpec::Kind::kSequential:
      return ValidateSequential(spec, region_bytes >> kPageShift, vcpu_count);
    case PatternSpec::Kind::kUniform:
      return absl::OkStatus();
    case PatternSpec::Kind::kZipf:
      if (!(spec.zipf_exponent > 0 && spec.zipf_exponent <= 10)) {
        return Bad("zipf_exponent", spec.zipf_exponent,
                   "must be above 0 and at most 10",
                   "use 0.99 for the usual skew");
      }
      return absl::OkStatus();
    case PatternSpec::Kind::kHotCold:
      return ValidateHotCold(spec);
  }
  return Bad("kind", static_cast<int>(spec.kind), "is not a known pattern",
             "use sequential, uniform, zipf or hot_cold");
}

}  // namespace mmu
