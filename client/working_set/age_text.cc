#include "client/working_set/age_text.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace mmud::client {
namespace {

// "2h05m", or "2h" without a rest.
std::string TwoUnits(int64_t count, int64_t per_unit, const char* unit,
                     const char* small_unit) {
  std::string text = absl::StrCat(count / per_unit, unit);
  if (const int64_t rest = count % per_unit; rest != 0) {
    absl::StrAppendFormat(&text, "%02d%s", rest, small_unit);
  }
  return text;
}

}  // namespace

std::string FormatAge(absl::Duration age) {
  if (age == absl::InfiniteDuration()) return "forever";
  if (age < absl::ZeroDuration()) return absl::StrCat("-", FormatAge(-age));
  if (age < absl::Milliseconds(1)) return "0s";
  if (age < absl::Seconds(1)) {
    return absl::StrCat(absl::ToInt64Milliseconds(age), "ms");
  }
  if (age < absl::Minutes(1)) {
    return absl::StrCat(absl::ToInt64Seconds(age), "s");
  }
  if (age < absl::Hours(1)) {
    return TwoUnits(absl::ToInt64Seconds(age), 60, "m", "s");
  }
  if (age < absl::Hours(24)) {
    return TwoUnits(absl::ToInt64Minutes(age), 60, "h", "m");
  }
  return TwoUnits(absl::ToInt64Hours(age), 24, "d", "h");
}

std::string FormatAgeRange(absl::Duration min, absl::Duration max) {
  if (min == max) return FormatAge(min);
  if (max == absl::InfiniteDuration()) {
    return absl::StrCat("over ", FormatAge(min));
  }
  return absl::StrCat(FormatAge(min), " - ", FormatAge(max));
}

const std::vector<absl::Duration>& RoundAges() {
  static const auto* const ages = new std::vector<absl::Duration>{
      absl::Milliseconds(10), absl::Milliseconds(100), absl::Seconds(1),
      absl::Seconds(2),       absl::Seconds(5),        absl::Seconds(10),
      absl::Seconds(20),      absl::Seconds(30),       absl::Minutes(1),
      absl::Minutes(2),       absl::Minutes(5),        absl::Minutes(10),
      absl::Minutes(20),      absl::Minutes(30),       absl::Hours(1),
      absl::Hours(2),         absl::Hours(6),          absl::Hours(12),
      absl::Hours(24),        absl::Hours(2 * 24),     absl::Hours(7 * 24),
      absl::Hours(30 * 24)};
  return *ages;
}

}  // namespace mmud::client
