#include "mmu_core/stats/mmu_counters.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

// Covers: STAT-11
TEST(MmuCountersTest, LeafsAreCountedUpAndDownBySize) {
  MmuCounters counters;
  counters.AddLeafs(Level::k2M, 3);
  counters.AddLeafs(Level::k1G, 1);
  counters.AddLeafs(Level::k4K, 512);
  counters.AddLeafs(Level::k2M, -1);
  EXPECT_EQ(counters.Leafs(Level::k4K), 512u);
  EXPECT_EQ(counters.Leafs(Level::k2M), 2u);
  EXPECT_EQ(counters.Leafs(Level::k1G), 1u);
  EXPECT_EQ(counters.Tables(), 0u);
  counters.AddTables(5);
  counters.AddTables(-5);
  EXPECT_EQ(counters.Tables(), 0u);
  EXPECT_EQ(counters.Leafs(Level::k4K), 512u);
}

// Covers: STAT-11
TEST(MmuCountersTest, WhatOneThreadAddsAnotherMayTakeAway) {
  MmuCounters counters;
  constexpr int kRounds = 10000;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&counters, t] {
      for (int i = 0; i < kRounds; ++i) {
        counters.AddLeafs(Level::k4K, t < 2 ? 3 : -3);
        counters.AddTables(t < 2 ? 1 : -1);
      }
      counters.AddLeafs(Level::k4K, 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counters.Leafs(Level::k4K), 4u);
  EXPECT_EQ(counters.Tables(), 0u);
}

TEST(MmuCountersTest, SplitsAreToldApartBySizeAndTrigger) {
  MmuCounters counters;
  for (int t = 0; t < kSplitTriggers; ++t) {
    for (int i = 0; i <= t; ++i) {
      counters.CountSplit(Level::k2M, static_cast<SplitTrigger>(t));
    }
  }
  counters.CountSplit(Level::k1G, SplitTrigger::kFault);
  for (int t = 0; t < kSplitTriggers; ++t) {
    const auto trigger = static_cast<SplitTrigger>(t);
    EXPECT_EQ(counters.Splits(Level::k2M, trigger),
              static_cast<uint64_t>(t + 1));
    EXPECT_EQ(counters.Splits(Level::k1G, trigger),
              trigger == SplitTrigger::kFault ? 1u : 0u);
  }
}

TEST(MmuCountersTest, FailuresAndRecoveriesAreToldApart) {
  MmuCounters counters;
  counters.CountSplitFailure(SplitFailure::kRaced);
  counters.CountSplitFailure(SplitFailure::kRaced);
  counters.CountSplitFailure(SplitFailure::kNoMemory);
  EXPECT_EQ(counters.SplitFailures(SplitFailure::kRaced), 2u);
  EXPECT_EQ(counters.SplitFailures(SplitFailure::kNoMemory), 1u);
  EXPECT_EQ(counters.SplitFailures(SplitFailure::kLimit), 0u);
  counters.CountRecoveries(Level::k1G, 1);
  EXPECT_EQ(counters.Recoveries(Level::k1G), 1u);
  EXPECT_EQ(counters.Recoveries(Level::k2M), 0u);
}

}  // namespace
}  // namespace mmu
