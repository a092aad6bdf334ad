#include "bench/nested_split_perf.h"

#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

using ::testing::HasSubstr;

TEST(NestedSplitPerfTest, ATableHasALineForEachShareOfWritesAndVcpus) {
  const auto options = ParseNestedSplitPerf({"-b", "4M", "-i", "1", "-v", "2"});
  ASSERT_TRUE(options.ok()) << options.status();
  std::ostringstream out;
  const absl::Status status = RunNestedSplitPerf(*options, out);
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<std::string> lines =
      absl::StrSplit(out.str(), '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 2u + 6u) << out.str();
  EXPECT_THAT(lines[1], HasSubstr("lazy/eager"));
  EXPECT_THAT(lines[2], HasSubstr("100%     1 "));
  EXPECT_THAT(lines[7], HasSubstr("5%     2 "));
}

TEST(NestedSplitPerfTest, WhatIsNotUnderstoodIsAnError) {
  const absl::Status status = ParseNestedSplitPerf({"-i", "0"}).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("-i 0: must be a number from 1 to 1000"));
}

}  // namespace
}  // namespace mmu::bench
