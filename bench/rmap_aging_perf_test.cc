#include "bench/rmap_aging_perf.h"

#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RmapAgingPerfTest, TheTablesHaveALineForEachNumberOfVcpusAndWayToAge) {
  const auto options = ParseRmapAgingPerf({"-i", "1", "-t", "20", "-v", "3"});
  ASSERT_TRUE(options.ok()) << options.status();
  std::ostringstream out;
  const absl::Status status = RunRmapAgingPerf(*options, out);
  ASSERT_TRUE(status.ok()) << status;
  std::vector<std::string> labels;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(out.str(), '\n'))) {
    const std::vector<std::string> cells =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (cells.size() != 9 || cells[0] == "vCPUs") continue;
    labels.push_back(cells[0] + " " + cells[1]);
    for (size_t i = 2; i < cells.size(); ++i) {
      double number = -1;
      EXPECT_TRUE(absl::SimpleAtod(cells[i], &number) && number >= 0) << line;
    }
  }
  EXPECT_THAT(labels,
              ElementsAre("0 rmap", "0 mmu_lock", "1 apart", "1 rmap",
                          "1 mmu_lock", "3 apart", "3 rmap", "3 mmu_lock",
                          "1 none", "1 apart", "1 rmap", "1 mmu_lock", "3 none",
                          "3 apart", "3 rmap", "3 mmu_lock"))
      << out.str();
}

TEST(RmapAgingPerfTest, WhatIsNotUnderstoodIsAnError) {
  const absl::Status status = ParseRmapAgingPerf({"-t", "0"}).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("-t 0: must be a number from 1 to 60000"));
}

}  // namespace
}  // namespace mmu::bench
