#include "mmu_core/paging/known_leaf_count.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

constexpr uint64_t kTokens =
    KnownLeafCount::kUnknown - KnownLeafCount::kFirstToken;

TEST(KnownLeafCountTest, ACountThatNothingDisturbedIsKnown) {
  KnownLeafCount count;
  LeafCountTokens tokens;
  EXPECT_EQ(count.KnownOr(-1), -1);
  for (const int leafs : {0, 1, kEntriesPerTable}) {
    const KnownLeafCount::Token token = tokens.Next();
    count.BeginCount(token);
    EXPECT_EQ(count.KnownOr(-1), -1) << "a token is no number";
    count.EndCount(token, leafs);
    EXPECT_EQ(count.KnownOr(-1), leafs);
  }
  count.Reset();
  EXPECT_EQ(count.KnownOr(-1), -1);
}

TEST(KnownLeafCountTest, ALeafThatChangesDuringOrAfterACountMakesItUnknown) {
  KnownLeafCount count;
  LeafCountTokens tokens;
  KnownLeafCount::Token token = tokens.Next();
  count.BeginCount(token);
  count.Forget();
  count.EndCount(token, 5);
  EXPECT_EQ(count.KnownOr(-1), -1);

  token = tokens.Next();
  count.BeginCount(token);
  count.EndCount(token, 5);
  count.Forget();
  EXPECT_EQ(count.KnownOr(-1), -1);
}

TEST(KnownLeafCountTest, OfTwoCountsTheLaterOneCounts) {
  KnownLeafCount count;
  LeafCountTokens tokens;
  const KnownLeafCount::Token first = tokens.Next();
  const KnownLeafCount::Token second = tokens.Next();
  count.BeginCount(first);
  count.BeginCount(second);
  count.EndCount(first, 5);
  EXPECT_EQ(count.KnownOr(-1), -1);
  count.EndCount(second, 6);
  EXPECT_EQ(count.KnownOr(-1), 6);
}

TEST(KnownLeafCountTest, TokensAreNeitherNumbersNorUnknownAlsoWhenTheyWrap) {
  LeafCountTokens tokens(kTokens - 2);
  uint32_t before = 0;
  for (int i = 0; i < 4; ++i) {
    const auto token = static_cast<uint32_t>(tokens.Next());
    EXPECT_GT(token, static_cast<uint32_t>(kEntriesPerTable));
    EXPECT_NE(token, KnownLeafCount::kUnknown);
    EXPECT_NE(token, before);
    before = token;
  }
  EXPECT_EQ(before, KnownLeafCount::kFirstToken + 1) << "they began again";
}

}  // namespace
}  // namespace mmu
