#include "mmu_core/memory/lpage_info.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

constexpr uint64_t kHostBase = uint64_t{1} << 45;
constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);

// Host memory that is congruent to the gfn at every level, except for `offset`
// bytes.
Hva HvaFor(uint64_t gfn, uint64_t offset = 0) {
  return Hva(kHostBase + (gfn << kPageShift) + offset);
}

// The counters of `level`, beginning with the block of `base`.
std::vector<uint32_t> Counts(const LpageInfo& info, uint64_t base,
                             Level level) {
  std::vector<uint32_t> counts;
  const uint64_t pages = PagesPer(level);
  for (uint64_t i = 0; i < info.block_count(level); ++i) {
    const uint64_t gfn = i == 0 ? base : (base / pages + i) * pages;
    counts.push_back(info.Count(Gfn(gfn), level));
  }
  return counts;
}

// Covers: SLOT-40
TEST(LpageInfoTest, OneCounterForEachBlockTouched) {
  const LpageInfo info(Gfn(1), 512, HvaFor(1));
  EXPECT_EQ(info.block_count(Level::k2M), uint64_t{2});
  EXPECT_EQ(info.block_count(Level::k1G), uint64_t{1});
  const LpageInfo exact(Gfn(512), 512, HvaFor(512));
  EXPECT_EQ(exact.block_count(Level::k2M), uint64_t{1});
  const LpageInfo large(Gfn(k1GPages - 1), k1GPages + 2, HvaFor(k1GPages - 1));
  EXPECT_EQ(large.block_count(Level::k1G), uint64_t{3});
  EXPECT_EQ(large.block_count(Level::k2M), uint64_t{514});
}

// Covers: SLOT-40
TEST(LpageInfoTest, AllPagesOfABlockShareItsCounter) {
  LpageInfo info(Gfn(512), 1024, HvaFor(512));
  info.Disallow(Gfn(700));
  EXPECT_EQ(info.Count(Gfn(512), Level::k2M), uint32_t{1});
  EXPECT_EQ(info.Count(Gfn(1023), Level::k2M), uint32_t{1});
  EXPECT_EQ(info.Count(Gfn(1024), Level::k2M), uint32_t{0});
}

// Covers: SLOT-41
TEST(LpageInfoTest, BlocksThatStickOutAreDisallowed) {
  const LpageInfo info(Gfn(1), 1024, HvaFor(1));
  EXPECT_EQ(Counts(info, 1, Level::k2M), (std::vector<uint32_t>{1, 0, 1}));
  const LpageInfo head(Gfn(1), 1023, HvaFor(1));
  EXPECT_EQ(Counts(head, 1, Level::k2M), (std::vector<uint32_t>{1, 0}));
  const LpageInfo tail(Gfn(0), 1025, HvaFor(0));
  EXPECT_EQ(Counts(tail, 0, Level::k2M), (std::vector<uint32_t>{0, 0, 1}));
  const LpageInfo inside(Gfn(1), 2, HvaFor(1));
  EXPECT_EQ(Counts(inside, 1, Level::k2M), (std::vector<uint32_t>{1}));
  const LpageInfo exact(Gfn(k1GPages), k1GPages, HvaFor(k1GPages));
  EXPECT_FALSE(exact.Disallowed(Gfn(k1GPages), Level::k1G));
}

// Covers: SLOT-42
TEST(LpageInfoTest, AddressesThatAreNotCongruentDisallowTheLevel) {
  const LpageInfo by_4k(Gfn(0), k1GPages, HvaFor(0, kPageSize));
  for (uint64_t gfn = 0; gfn < k1GPages; gfn += k2MPages) {
    ASSERT_EQ(by_4k.Count(Gfn(gfn), Level::k2M), uint32_t{1});
  }
  EXPECT_TRUE(by_4k.Disallowed(Gfn(0), Level::k1G));

  const LpageInfo by_2m(Gfn(0), k1GPages, HvaFor(0, BytesPer(Level::k2M)));
  for (uint64_t gfn = 0; gfn < k1GPages; gfn += k2MPages) {
    ASSERT_EQ(by_2m.Count(Gfn(gfn), Level::k2M), uint32_t{0});
  }
  EXPECT_TRUE(by_2m.Disallowed(Gfn(0), Level::k1G));

  const LpageInfo by_1g(Gfn(0), k1GPages, HvaFor(0, BytesPer(Level::k1G)));
  EXPECT_FALSE(by_1g.Disallowed(Gfn(0), Level::k1G));
}

// Covers: SLOT-43
TEST(LpageInfoTest, CountersCountTrackersAtBothLevels) {
  LpageInfo info(Gfn(0), k1GPages, HvaFor(0));
  info.Disallow(Gfn(1000));
  info.Disallow(Gfn(1001));
  EXPECT_EQ(info.Count(Gfn(1000), Level::k2M), uint32_t{2});
  EXPECT_EQ(info.Count(Gfn(1000), Level::k1G), uint32_t{2});
  info.Allow(Gfn(1000));
  EXPECT_TRUE(info.Disallowed(Gfn(1000), Level::k2M));
  EXPECT_TRUE(info.Disallowed(Gfn(1000), Level::k1G));
  info.Allow(Gfn(1001));
  EXPECT_FALSE(info.Disallowed(Gfn(1000), Level::k2M));
  EXPECT_FALSE(info.Disallowed(Gfn(1000), Level::k1G));
}

// Covers: SLOT-43
TEST(LpageInfoTest, TrackersComeOnTopOfTheEdges) {
  LpageInfo info(Gfn(1), 1024, HvaFor(1));
  info.Disallow(Gfn(1));
  info.Allow(Gfn(1));
  EXPECT_EQ(info.Count(Gfn(1), Level::k2M), uint32_t{1});
}

// Covers: SLOT-43
TEST(LpageInfoTest, TrackersAreCountedWithoutWhatTheSlotsShapeForbids) {
  LpageInfo edges(Gfn(1), 1024, HvaFor(1));
  LpageInfo by_4k(Gfn(0), k1GPages, HvaFor(0, kPageSize));
  for (const uint64_t gfn : {1, 512, 1024}) {
    for (LpageInfo* info : {&edges, &by_4k}) {
      for (const Level level : {Level::k2M, Level::k1G}) {
        EXPECT_EQ(info->Disallows(Gfn(gfn), level), uint32_t{0});
        info->Disallow(Gfn(gfn));
        EXPECT_EQ(info->Disallows(Gfn(gfn), level), uint32_t{1});
        info->Allow(Gfn(gfn));
      }
    }
  }
}

// Covers: SLOT-43
TEST(LpageInfoDeathTest, CounterNeverDropsBelowZero) {
  LpageInfo info(Gfn(0), k1GPages, HvaFor(0));
  EXPECT_DEATH(info.Allow(Gfn(0)), "check failed: before > 0");
}

// Covers: SLOT-45
TEST(LpageInfoDeathTest, QueryOutsideTheSlotIsABug) {
  const LpageInfo info(Gfn(512), 512, HvaFor(512));
  EXPECT_DEATH(info.Count(Gfn(511), Level::k2M), "check failed");
  EXPECT_DEATH(info.Count(Gfn(1024), Level::k2M), "check failed");
  // In the same 1 GiB block, but outside the slot.
  EXPECT_DEATH(info.Disallowed(Gfn(0), Level::k1G), "check failed");
}

}  // namespace
}  // namespace mmu
