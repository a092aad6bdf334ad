#include "trace/trace_filter.h"

#include <cstdint>
#include <set>
#include <utility>

#include "gtest/gtest.h"
#include "mmu_core/guest/random.h"

namespace mmud::trace {
namespace {

TraceRecord Load(uint64_t address, uint32_t size = 8) {
  return {TraceOp::kLoad, address, size};
}
TraceRecord Store(uint64_t address) { return {TraceOp::kStore, address, 8}; }

TEST(TraceFilterTest, ZeroLinesKeepEverything) {
  TraceFilter filter(0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(filter.Keep(Load(0x40)));
  EXPECT_EQ(filter.seen(), 10u);
}

TEST(TraceFilterTest, SameLineIsLeftOutUntilEnoughOthersCame) {
  TraceFilter filter(2);
  EXPECT_TRUE(filter.Keep(Load(0x1000)));
  EXPECT_FALSE(filter.Keep(Load(0x1008)));
  EXPECT_TRUE(filter.Keep(Load(0x1040)));
  EXPECT_FALSE(filter.Keep(Load(0x1038)));
  EXPECT_TRUE(filter.Keep(Load(0x1080)));  // removes 0x1000 from the ring
  EXPECT_FALSE(filter.Keep(Load(0x1040)));
  EXPECT_TRUE(filter.Keep(Load(0x1000)));
  EXPECT_EQ(filter.seen(), 7u);
}

TEST(TraceFilterTest, OperationsAreKeptApart) {
  TraceFilter filter(8);
  EXPECT_TRUE(filter.Keep(Load(0)));
  EXPECT_TRUE(filter.Keep(Store(0)));
  EXPECT_TRUE(filter.Keep({TraceOp::kModify, 0, 8}));
  EXPECT_FALSE(filter.Keep(Store(8)));
}

TEST(TraceFilterTest, AccessReachingIntoAnUnknownLineIsKept) {
  TraceFilter filter(8);
  EXPECT_TRUE(filter.Keep(Load(0x1000)));
  EXPECT_TRUE(filter.Keep(Load(0x103c, 8)));
  EXPECT_FALSE(filter.Keep(Load(0x103c, 8)));
  EXPECT_FALSE(filter.Keep(Load(0x1040)));
  EXPECT_TRUE(filter.Keep(Load(0x1000, 256)));
  EXPECT_FALSE(filter.Keep(Load(0x1080)));
}

TEST(TraceFilterTest, AccessAcrossTheEndOfTheAddressesIsNoEndlessLoop) {
  TraceFilter filter(8);
  EXPECT_TRUE(filter.Keep(Load(~uint64_t{0} - 3, 8)));
  EXPECT_FALSE(filter.Keep(Load(0)));
}

TEST(TraceFilterTest, NeverLosesTheFirstTouchOfALineAndOperation) {
  for (const uint32_t lines : {1u, 16u, 4096u, 1'000'000u}) {
    TraceFilter filter(lines);
    std::set<std::pair<uint64_t, TraceOp>> all;
    std::set<std::pair<uint64_t, TraceOp>> kept;
    mmu::Rng rng(lines);
    for (int i = 0; i < 20'000; ++i) {
      const TraceRecord record = {
          static_cast<TraceOp>(mmu::UniformBelow(rng, kTraceOps)),
          mmu::UniformBelow(rng, 50'000) & ~uint64_t{7}, 8};
      const std::pair<uint64_t, TraceOp> touch(record.address / 64, record.op);
      all.insert(touch);
      if (filter.Keep(record)) kept.insert(touch);
    }
    EXPECT_EQ(kept, all);
  }
}

}  // namespace
}  // namespace mmud::trace
