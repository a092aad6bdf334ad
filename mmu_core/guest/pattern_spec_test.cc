#include "mmu_core/guest/pattern_spec.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

using Kind = PatternSpec::Kind;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kSpaceBytes = 100 * 4096;

TEST(PatternSpecTest, DefaultsAreValidForEveryKind) {
  for (const Kind kind :
       {Kind::kSequential, Kind::kUniform, Kind::kZipf, Kind::kHotCold}) {
    PatternSpec spec;
    spec.kind = kind;
    EXPECT_EQ(Validate(spec, kSpaceBytes, 2), absl::OkStatus())
        << ToString(kind);
  }
}

TEST(PatternSpecTest, EachErrorNamesTheFieldTheValueAndTheRule) {
  struct Case {
    std::function<void(PatternSpec&)> change;
    std::string field;
    std::string rule;
  };
  const std::vector<Case> cases = {
      {[](PatternSpec& s) { s.write_fraction = 1.5; }, "write_fraction is 1.5",
       "between 0 and 1"},
      {[](PatternSpec& s) { s.write_fraction = std::nan(""); },
       "write_fraction is nan", "between 0 and 1"},
      {[](PatternSpec& s) { s.exec_fraction = -0.5; }, "exec_fraction is -0.5",
       "between 0 and 1"},
      {[](PatternSpec& s) { s.exec_fraction = 0.75; },
       "write_fraction + exec_fraction is 1.25", "at most 1"},
      {[](PatternSpec& s) { s.offset_bytes = 5; }, "offset_bytes is 5",
       "multiple of 4096"},
      {[](PatternSpec& s) { s.offset_bytes = kSpaceBytes; },
       "offset_bytes is 409600", "below the guest memory size"},
      {[](PatternSpec& s) { s.size_bytes = 4097; }, "size_bytes is 4097",
       "multiple of 4096"},
      {[](PatternSpec& s) {
         s.offset_bytes = 4096;
         s.size_bytes = kSpaceBytes;
       },
       "size_bytes is 409600", "only 405504 bytes"},
      {[](PatternSpec& s) { s.size_bytes = ~uint64_t{4095}; }, "size_bytes is",
       "only 409600 bytes"},
      {[](PatternSpec& s) {
         s.kind = Kind::kSequential;
         s.stride_bytes = 0;
       },
       "stride_bytes is 0", "positive multiple of 8"},
      {[](PatternSpec& s) {
         s.kind = Kind::kSequential;
         s.stride_bytes = 12;
       },
       "stride_bytes is 12", "positive multiple of 8"},
      {[](PatternSpec& s) {
         s.kind = Kind::kSequential;
         s.stride_bytes = 51 * 4096;
       },
       "stride_bytes is 208896", "share of a vCPU, 204800 bytes"},
      {[](PatternSpec& s) {
         s.kind = Kind::kSequential;
         s.size_bytes = 4096;
       },
       "vCPU count is 2", "only 1 pages"},
      {[](PatternSpec& s) {
         s.kind = Kind::kZipf;
         s.zipf_exponent = 0;
       },
       "zipf_exponent is 0", "above 0 and at most 10"},
      {[](PatternSpec& s) {
         s.kind = Kind::kHotCold;
         s.hot_fraction = 0;
       },
       "hot_fraction is 0", "above 0 and at most 1"},
      {[](PatternSpec& s) {
         s.kind = Kind::kHotCold;
         s.hot_access_fraction = 2;
       },
       "hot_access_fraction is 2", "between 0 and 1"},
      {[](PatternSpec& s) {
         s.kind = Kind::kHotCold;
         s.drift_pages_per_million_accesses = ~uint64_t{0};
       },
       "drift_pages_per_million_accesses is 18446744073709551615", "at most"},
      {[](PatternSpec& s) { s.kind = static_cast<Kind>(9); }, "kind is 9",
       "not a known pattern"},
  };
  for (const Case& c : cases) {
    PatternSpec spec;
    c.change(spec);
    const absl::Status status = Validate(spec, kSpaceBytes, 2);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(c.field), HasSubstr(c.rule)));
  }
}

TEST(PatternSpecTest, NeedsMemoryAndAVcpu) {
  EXPECT_THAT(std::string(Validate(PatternSpec{}, 0, 1).message()),
              HasSubstr("guest memory size is 0"));
  EXPECT_THAT(std::string(Validate(PatternSpec{}, kSpaceBytes, 0).message()),
              HasSubstr("vCPU count is 0"));
}

}  // namespace
}  // namespace mmu
