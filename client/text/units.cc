#include "client/text/units.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace mmud::client {
namespace {

constexpr absl::string_view kPrefixes = "KMGT";

// The factor of a unit: "", "K", "KiB", "KB", "kib" and so on; 0 if the unit is
// unknown.
double FactorOf(absl::string_view unit) {
  if (unit.empty() || unit == "B") return 1;
  const size_t power = kPrefixes.find(static_cast<char>(
      absl::ascii_toupper(static_cast<unsigned char>(unit[0]))));
  if (power == kPrefixes.npos) return 0;
  const absl::string_view rest = unit.substr(1);
  if (rest.empty() || absl::EqualsIgnoreCase(rest, "iB")) {
    return std::pow(1024.0, static_cast<double>(power + 1));
  }
  if (rest == "B" || rest == "b") {
    return std::pow(1000.0, static_cast<double>(power + 1));
  }
  return 0;
}

absl::Status BadBytes(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' ", why,
                   "; give bytes, for example 4096, 4K, 2MiB, 1.5GiB or "
                   "0x40000000"));
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  uint64_t hex = 0;
  if (absl::StartsWithIgnoreCase(text, "0x")) {
    if (!absl::SimpleHexAtoi(text, &hex) || hex > INT64_MAX) {
      return BadBytes(text, "is no hexadecimal size");
    }
    return static_cast<int64_t>(hex);
  }
  size_t digits = 0;
  while (digits < text.size() &&
         (absl::ascii_isdigit(text[digits]) || text[digits] == '.')) {
    ++digits;
  }
  const absl::string_view number = text.substr(0, digits);
  const absl::string_view unit =
      absl::StripLeadingAsciiWhitespace(text.substr(digits));
  const double factor = FactorOf(unit);
  if (number.empty() || factor == 0) return BadBytes(text, "is not a size");
  if (int64_t whole = 0; factor == 1) {
    if (!absl::SimpleAtoi(number, &whole)) {
      return BadBytes(text, "is not a whole number of bytes");
    }
    return whole;
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value)) return BadBytes(text, "is not a size");
  value *= factor;
  if (value >= std::ldexp(1.0, 63)) return BadBytes(text, "is too large");
  if (value != std::floor(value)) {
    return BadBytes(text, "is not a whole number of bytes");
  }
  return static_cast<int64_t>(value);
}

absl::StatusOr<GpaRange> ParseGpaRange(absl::string_view text) {
  const size_t separator = text.find_first_of("+-");
  if (separator == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text,
                     "' is not a range of memory; give START+SIZE or "
                     "START-END, for example 1GiB+2MiB"));
  }
  const absl::StatusOr<int64_t> start = ParseBytes(text.substr(0, separator));
  if (!start.ok()) return start.status();
  absl::StatusOr<int64_t> size = ParseBytes(text.substr(separator + 1));
  if (!size.ok()) return size.status();
  if (text[separator] == '-') *size -= *start;
  if (*size <= 0 || *start > INT64_MAX - *size) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is an empty range of memory"));
  }
  return GpaRange{*start, *size};
}

absl::StatusOr<int64_t> ParseBandwidth(absl::string_view text) {
  absl::string_view rest = text;
  absl::ConsumeSuffix(&rest, "/s");
  int64_t bytes = 0;
  if (absl::ConsumeSuffix(&rest, "bit") || absl::ConsumeSuffix(&rest, "bps")) {
    // Units of bits are powers of 1000 only.
    const absl::StatusOr<int64_t> bits =
        ParseBytes(rest.empty() || absl::ascii_isdigit(rest.back())
                       ? std::string(rest)
                       : absl::StrCat(rest, "B"));
    if (bits.ok()) bytes = *bits / 8;
  } else if (const absl::StatusOr<int64_t> parsed = ParseBytes(rest);
             parsed.ok()) {
    bytes = *parsed;
  }
  if (bytes <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text,
                     "' is not a bandwidth; give for example 10Gbit/s, 125MB/s "
                     "or 1250000000"));
  }
  return bytes;
}

absl::StatusOr<absl::Duration> ParseTime(absl::string_view text) {
  absl::Duration time;
  if (!absl::ParseDuration(text, &time) || time < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a time; give for example 300ms, 2.5s or 1m30s"));
  }
  return time;
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t power = 0;
  do {
    value /= 1024;
    ++power;
  } while (value >= 1024 && power < kPrefixes.size());
  std::string number = absl::StrFormat("%.1f", value);
  if (absl::EndsWith(number, ".0")) number.resize(number.size() - 2);
  return absl::StrCat(number, " ", kPrefixes.substr(power - 1, 1), "iB");
}

std::string FormatGpa(int64_t gpa_bytes) {
  return absl::StrFormat("%#x", gpa_bytes);
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string FormatTime(absl::Duration time) {
  if (time < absl::ZeroDuration()) return absl::StrCat("-", FormatTime(-time));
  if (time == absl::ZeroDuration()) return "0";
  if (time == absl::InfiniteDuration()) return "forever";
  if (time >= absl::Minutes(2)) {
    const int64_t seconds = absl::ToInt64Seconds(time);
    return absl::StrFormat("%dm %02ds", seconds / 60, seconds % 60);
  }
  double value = absl::ToDoubleNanoseconds(time);
  const char* unit = "ns";
  for (const char* larger : {"us", "ms", "s"}) {
    if (value < 999.5) break;
    value /= 1000;
    unit = larger;
  }
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f %s", decimals, value, unit);
}

std::string FormatWallTime(WallTime time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC",
                          absl::FromUnixNanos(time.unix_nanos()),
                          absl::UTCTimeZone());
}

std::string FormatBandwidth(double bytes_per_second) {
  const char* unit = "B/s";
  for (const char* larger : {"KB/s", "MB/s", "GB/s"}) {
    if (bytes_per_second < 999.5) break;
    bytes_per_second /= 1000;
    unit = larger;
  }
  return absl::StrFormat("%.3g %s", bytes_per_second, unit);
}

std::string FormatShare(double part, double whole) {
  return absl::StrFormat("%.1f%%", whole > 0 ? 100 * part / whole : 0.0);
}

std::string FormatShareOf(int64_t part, int64_t whole) {
  return FormatShare(static_cast<double>(part), static_cast<double>(whole));
}

}  // namespace mmud::client
