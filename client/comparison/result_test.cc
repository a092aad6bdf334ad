#include "client/comparison/result.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/guest_mmu.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

const GuestMmu& MmuOf(const std::string& word) {
  for (const GuestMmu& mmu : GuestMmus()) {
    if (mmu.word == word) return mmu;
  }
  ADD_FAILURE() << word;
  return GuestMmus().front();
}

// Huge mappings before and after; nothing was split yet.
CombinationResult Mappings(int64_t before_1g, int64_t before_2m,
                           int64_t after_1g, int64_t after_2m) {
  CombinationResult result;
  result.mapped_before.set_pages_1g_count(before_1g);
  result.mapped_before.set_pages_2m_count(before_2m);
  result.mapped_after.set_pages_1g_count(after_1g);
  result.mapped_after.set_pages_2m_count(after_2m);
  return result;
}

// "2 of 2M, 1 of 1G"; "unknown".
std::string FaultSplits(const std::string& mmu,
                        const CombinationResult& result) {
  const std::optional<v1::SplitCounts> splits =
      SplitsByFaults(MmuOf(mmu), result);
  if (!splits.has_value()) return "unknown";
  return absl::StrCat(splits->split_2m_count(), " of 2M, ",
                      splits->split_1g_count(), " of 1G");
}

TEST(ResultTest, WhatNoOtherSplitCountedWasSplitByFaults) {
  CombinationResult result = Mappings(0, 10, 0, 1);
  EXPECT_EQ(FaultSplits("tdp", result), "9 of 2M, 0 of 1G");
  result.enabling.splits.set_split_2m_count(4);
  EXPECT_EQ(FaultSplits("tdp", result), "5 of 2M, 0 of 1G");
  result.split_ahead.emplace().splits.set_split_2m_count(5);
  EXPECT_EQ(FaultSplits("tdp", result), "0 of 2M, 0 of 1G");
}

TEST(ResultTest, ASplitOfAGibMakesHugeMappingsThatAreSplitToo) {
  CombinationResult result = Mappings(2, 0, 0, 500);
  EXPECT_EQ(FaultSplits("tdp", result), "524 of 2M, 2 of 1G");
  result.enabling.splits.set_split_1g_count(1);
  result.enabling.splits.set_split_2m_count(512);
  EXPECT_EQ(FaultSplits("tdp", result), "12 of 2M, 1 of 1G");
}

TEST(ResultTest, AMappingThatAFaultDropsLeavesNoSmallerOnes) {
  EXPECT_EQ(FaultSplits("tdp-shadow", Mappings(2, 3, 0, 0)),
            "3 of 2M, 2 of 1G");
}

TEST(ResultTest, MoreSplitsThanMappingsAreNotKnownToBeByFaults) {
  CombinationResult result = Mappings(0, 10, 0, 1);
  result.enabling.splits.set_split_2m_count(10);
  EXPECT_EQ(FaultSplits("tdp", result), "unknown");
}

TEST(ResultTest, AGuestThatChangesItsTablesHidesTheCause) {
  for (const char* mmu : {"shadow", "nested"}) {
    EXPECT_EQ(FaultSplits(mmu, Mappings(0, 10, 0, 0)), "unknown");
  }
}

// Runs with passes of these lengths in milliseconds.
std::vector<CombinationResult> RunsOf(const std::vector<int>& millis) {
  std::vector<CombinationResult> runs;
  for (const int time : millis) {
    runs.emplace_back().pass.time = absl::Milliseconds(time);
    runs.back().pass.page_count = time;
  }
  return runs;
}

TEST(ResultTest, TheMedianIsAWholeRun) {
  for (const auto& [millis, median] :
       std::vector<std::pair<std::vector<int>, int>>{
           {{7}, 7}, {{7, 3}, 3}, {{9, 3, 7}, 7}, {{1, 9, 3, 7}, 3}}) {
    const CombinationResult result = MedianOf(RunsOf(millis));
    EXPECT_EQ(result.pass.time, absl::Milliseconds(median));
    EXPECT_EQ(result.pass.page_count, median);
    EXPECT_EQ(result.pass_times.size(), millis.size());
    EXPECT_TRUE(
        std::is_sorted(result.pass_times.begin(), result.pass_times.end()));
  }
}

TEST(ResultTest, ARunThatLostPagesIsNotHiddenByOthers) {
  std::vector<CombinationResult> runs = RunsOf({3, 7, 9});
  for (CombinationResult& run : runs) run.pass.all_written = true;
  runs[2].pass.all_written = false;
  EXPECT_EQ(MedianOf(runs).pass.page_count, 9);
}

TEST(ResultTest, ThePaceIsPagesByTime) {
  SplitAhead split;
  split.page_count = 1000;
  EXPECT_FALSE(PagesPerSecond(split).has_value());
  split.time = absl::Milliseconds(3);
  EXPECT_EQ(PagesPerSecond(split), 333'333);
}

// Whether all that 3 vCPUs wrote to 2048 pages is dirty: "yes", "no",
// "unknown". Two of their shares are a page smaller than the third.
std::string AllDirty(const std::string& mmu, double write_fraction,
                     const DirtyPass& pass) {
  PlanOptions options;
  options.mmu = &MmuOf(mmu);
  options.memory_bytes = 8 << 20;
  Combination combination;
  combination.vcpu_count = 3;
  combination.write_fraction = write_fraction;
  const std::optional<bool> all =
      AllWrittenAreDirty(options, combination, pass);
  return !all.has_value() ? "unknown" : *all ? "yes" : "no";
}

TEST(ResultTest, AGuestThatOnlyWritesMakesAllPagesDirty) {
  DirtyPass pass;
  pass.page_count = 2048;
  EXPECT_EQ(AllDirty("tdp", 1, pass), "yes");
  pass.page_count = 2047;
  EXPECT_EQ(AllDirty("tdp", 1, pass), "no");
  EXPECT_EQ(AllDirty("shadow", 1, pass), "unknown");
}

TEST(ResultTest, EachWriteOfAPassIsAPage) {
  DirtyPass pass;
  pass.access_count = 2049;
  pass.write_count = 200;
  pass.earlier_page_count = 7;
  // One write may be the second one to its page.
  for (const int64_t pages : {199, 200, 207}) {
    pass.page_count = pages;
    EXPECT_EQ(AllDirty("tdp", 0.1, pass), "yes") << pages;
  }
  for (const int64_t pages : {0, 198, 208}) {
    pass.page_count = pages;
    EXPECT_EQ(AllDirty("tdp", 0.1, pass), "no") << pages;
  }
}

TEST(ResultTest, CountsOfOtherAccessesSayNothingAboutThePages) {
  DirtyPass pass;
  pass.access_count = 2 * 2049;
  pass.write_count = 400;
  pass.page_count = 200;
  EXPECT_EQ(AllDirty("tdp-shadow", 0.1, pass), "unknown");
  // The pass ended early, and these pages are what it has got to.
  pass.limit_reached = true;
  pass.access_count = 1000;
  EXPECT_EQ(AllDirty("tdp", 1, pass), "unknown");
}

}  // namespace
}  // namespace mmud::client
