#include "client/text/units.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

TEST(ParseBytesTest, TakesPlainBinaryDecimalAndHexadecimal) {
  EXPECT_EQ(*ParseBytes("0"), 0);
  EXPECT_EQ(*ParseBytes("4096"), 4096);
  EXPECT_EQ(*ParseBytes("512B"), 512);
  EXPECT_EQ(*ParseBytes("4K"), 4096);
  EXPECT_EQ(*ParseBytes("4k"), 4096);
  EXPECT_EQ(*ParseBytes("4KiB"), 4096);
  EXPECT_EQ(*ParseBytes("2M"), 2 << 20);
  EXPECT_EQ(*ParseBytes("4 GiB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(*ParseBytes("1T"), int64_t{1} << 40);
  EXPECT_EQ(*ParseBytes("1GB"), 1'000'000'000);
  EXPECT_EQ(*ParseBytes("0x40000000"), 0x40000000);
  EXPECT_EQ(*ParseBytes("9223372036854775807"), INT64_MAX);
}

TEST(ParseBytesTest, RefusesEverythingElse) {
  for (const char* bad :
       {"", "G", "-1", "4X", "4GiBs", "1.0000001K", "8388608T", "0x", "0xfg",
        "0x8000000000000000", "9223372036854775808", "1.5", "1..5K", "four"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseBytes(bad).status())) << bad;
  }
}

TEST(ParseGpaRangeTest, TakesSizeOrEnd) {
  EXPECT_EQ(*ParseGpaRange("1GiB+2MiB"), (GpaRange{1 << 30, 2 << 20}));
  EXPECT_EQ(*ParseGpaRange("4096-0x3000"), (GpaRange{4096, 8192}));
}

TEST(ParseGpaRangeTest, RefusesWhatIsEmptyOrNoRange) {
  for (const char* bad : {"", "4096", "4096+", "8192-4096", "4096+0", "+4096",
                          "9223372036854775807+4096"}) {
    EXPECT_FALSE(ParseGpaRange(bad).ok()) << bad;
  }
}

TEST(ParseBandwidthTest, TakesBitsAndBytes) {
  EXPECT_EQ(*ParseBandwidth("10Gbit/s"), 1'250'000'000);
  EXPECT_EQ(*ParseBandwidth("100Mbit"), 12'500'000);
  EXPECT_EQ(*ParseBandwidth("125MB/s"), 125'000'000);
  EXPECT_EQ(*ParseBandwidth("1GiB/s"), 1 << 30);
  EXPECT_EQ(*ParseBandwidth("800bit/s"), 100);
  EXPECT_EQ(*ParseBandwidth("1250000000"), 1'250'000'000);
  for (const char* bad : {"", "0", "fast", "10Gbit/m", "-1", "7bit"}) {
    EXPECT_FALSE(ParseBandwidth(bad).ok()) << bad;
  }
}

TEST(ParseTimeTest, TakesDurations) {
  EXPECT_EQ(*ParseTime("300ms"), absl::Milliseconds(300));
  EXPECT_EQ(*ParseTime("0"), absl::ZeroDuration());
  EXPECT_FALSE(ParseTime("300").ok());
  EXPECT_FALSE(ParseTime("-1s").ok());
}

TEST(FormatTest, BytesHaveAtMostOneDecimal) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(4096), "4 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{4} << 30), "4 GiB");
}

TEST(FormatTest, CountsHaveCommas) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
}

TEST(FormatTest, TimesHaveThreeDigits) {
  EXPECT_EQ(FormatTime(absl::ZeroDuration()), "0");
  EXPECT_EQ(FormatTime(absl::Nanoseconds(12)), "12.0 ns");
  EXPECT_EQ(FormatTime(absl::Nanoseconds(1234)), "1.23 us");
  EXPECT_EQ(FormatTime(absl::Microseconds(45678)), "45.7 ms");
  EXPECT_EQ(FormatTime(absl::Seconds(78.94)), "78.9 s");
  EXPECT_EQ(FormatTime(absl::Seconds(125)), "2m 05s");
}

TEST(FormatTest, WallTimesAreUtc) {
  EXPECT_EQ(FormatWallTime(WallTime::FromUnixNanos(1795249477'123456789)),
            "2026-11-21 08:24:37 UTC");
}

TEST(FormatTest, BandwidthAndShares) {
  EXPECT_EQ(FormatBandwidth(1.25e9), "1.25 GB/s");
  EXPECT_EQ(FormatShare(1, 4), "25.0%");
  EXPECT_EQ(FormatShare(1, 0), "0.0%");
  EXPECT_EQ(FormatShareOf(1, 4), "25.0%");
}

}  // namespace
}  // namespace mmud::client
