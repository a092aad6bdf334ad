// Sizes, ranges, rates and times as people give them to mmuctl.

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/text/units.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

void CheckRefusal(const absl::Status& status) {
  FUZZ_CHECK(absl::IsInvalidArgument(status) && !status.message().empty(),
             status);
}

void Run(std::string_view input) {
  const absl::string_view text(input.data(), input.size());
  const absl::StatusOr<int64_t> bytes = client::ParseBytes(text);
  if (bytes.ok()) {
    FUZZ_CHECK(*bytes >= 0, *bytes);
    for (const std::string& again :
         {absl::StrCat(*bytes), client::FormatGpa(*bytes)}) {
      const absl::StatusOr<int64_t> same = client::ParseBytes(again);
      FUZZ_CHECK(same.ok() && *same == *bytes, again);
    }
    FUZZ_CHECK(!client::FormatBytes(*bytes).empty() &&
                   !client::FormatCount(*bytes).empty(),
               *bytes);
  } else {
    CheckRefusal(bytes.status());
  }
  const absl::StatusOr<client::GpaRange> range = client::ParseGpaRange(text);
  if (range.ok()) {
    FUZZ_CHECK(range->gpa_bytes >= 0 && range->size_bytes >= 0 &&
                   range->gpa_bytes <=
                       std::numeric_limits<int64_t>::max() - range->size_bytes,
               text);
  } else {
    CheckRefusal(range.status());
  }
  const absl::StatusOr<int64_t> rate = client::ParseBandwidth(text);
  if (rate.ok()) {
    FUZZ_CHECK(*rate >= 1, *rate);
    client::FormatBandwidth(static_cast<double>(*rate));
  } else {
    CheckRefusal(rate.status());
  }
  const absl::StatusOr<absl::Duration> time = client::ParseTime(text);
  if (time.ok()) {
    FUZZ_CHECK(*time >= absl::ZeroDuration(), *time);
    FUZZ_CHECK(!client::FormatTime(*time).empty(), *time);
  } else {
    CheckRefusal(time.status());
  }
}

std::vector<Seed> Seeds() {
  return {{"bytes", "1.5GiB"},
          {"hex", "0x40000000"},
          {"decimal_kilo", "125KB"},
          {"range", "0x1000+2M"},
          {"range_end", "1G-0x50000000"},
          {"bits", "10Gbit/s"},
          {"bandwidth", "125MB/s"},
          {"time", "1m30.5s"}};
}

}  // namespace

Target ThisTarget() { return {.run = Run, .seeds = Seeds}; }

}  // namespace mmud::fuzz
