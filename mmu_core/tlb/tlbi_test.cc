// TLB invalidate instructions: how a flush is cut into them, and their counts.

#include "mmu_core/tlb/tlbi.h"

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;

using Piece = std::pair<uint64_t, uint64_t>;  // first granule, granules

std::vector<Piece> PiecesOf(uint64_t first, uint64_t granules) {
  std::vector<Piece> pieces;
  ForEachTlbi(first, granules,
              [&](uint64_t at, uint64_t n) { pieces.emplace_back(at, n); });
  return pieces;
}

TEST(TlbiTest, AnInstructionCoversByScaleAndNum) {
  EXPECT_EQ(TlbiGranules(0, 0), 2u);
  EXPECT_EQ(TlbiGranules(0, 31), 64u);
  EXPECT_EQ(TlbiGranules(1, 0), 64u);
  EXPECT_EQ(TlbiGranules(3, 31), kTlbiMaxGranules);
  EXPECT_EQ(kTlbiMaxGranules, uint64_t{1} << 21);
}

// Covers: ARM-39
TEST(TlbiTest, ARangeIsCutFromTheLargestScaleDown) {
  EXPECT_THAT(PiecesOf(5, 1), ElementsAre(Piece(5, 1)));
  EXPECT_THAT(PiecesOf(5, 2), ElementsAre(Piece(5, 2)));
  EXPECT_THAT(PiecesOf(0, 63), ElementsAre(Piece(0, 62), Piece(62, 1)));
  EXPECT_THAT(PiecesOf(0, 512), ElementsAre(Piece(0, 512)));
  EXPECT_THAT(PiecesOf(1, 515),
              ElementsAre(Piece(1, 512), Piece(513, 2), Piece(515, 1)));
  EXPECT_THAT(PiecesOf(0, kTlbiMaxGranules),
              ElementsAre(Piece(0, kTlbiMaxGranules)));
}

TEST(TlbiTest, ThePiecesAreTheRangeAndEachIsAnInstruction) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t first = random() % 1'000'000;
    const uint64_t granules = 1 + random() % (kTlbiMaxGranules >> (i % 21));
    uint64_t at = first;
    for (const auto& [start, count] : PiecesOf(first, granules)) {
      ASSERT_EQ(start, at);
      bool exists = count == 1;
      for (int scale = 0; scale <= kTlbiMaxScale && !exists; ++scale) {
        for (int num = 0; num <= kTlbiMaxNum && !exists; ++num) {
          exists = TlbiGranules(scale, num) == count;
        }
      }
      ASSERT_TRUE(exists) << count;
      at += count;
    }
    ASSERT_EQ(at, first + granules);
  }
}

std::vector<uint64_t> CountsOf(const TlbiUnit& unit) {
  std::vector<uint64_t> counts;
  for (int kind = 0; kind < kTlbiKinds; ++kind) {
    counts.push_back(unit.Count(static_cast<TlbiKind>(kind)));
  }
  return counts;
}

TlbFlush FlushOf(uint64_t first, uint64_t pages, uint64_t entry_pages = 0) {
  TlbFlush flush;
  flush.gfns = GfnRange::Of(Gfn(first), pages);
  flush.entry_pages = entry_pages;
  return flush;
}

// In the order of TlbiKind: by IPA, by range, by VMID, of stage 1, and the two
// of a vCPU's own.
TEST(TlbiTest, AFlushOfOneLevelIsByIpaForEachEntry) {
  for (const auto ranges : {TlbiUnit::Ranges::kNo, TlbiUnit::Ranges::kYes}) {
    TlbiUnit unit(/*granule_shift=*/12, ranges);
    const TlbFlush done = unit.Issue(FlushOf(512, 1024, 512));
    EXPECT_THAT(CountsOf(unit), ElementsAre(2, 0, 0, 1, 0, 0));
    EXPECT_EQ(done.gfns, GfnRange::Of(Gfn(512), 1024));
  }
}

TEST(TlbiTest, AnyOtherFlushIsByRangeOrOfTheVmid) {
  TlbiUnit without(12, TlbiUnit::Ranges::kNo);
  EXPECT_TRUE(without.Issue(FlushOf(8, 16)).CoversAllGfns());
  EXPECT_THAT(CountsOf(without), ElementsAre(0, 0, 1, 0, 0, 0));
  TlbiUnit with(12, TlbiUnit::Ranges::kYes);
  EXPECT_EQ(with.Issue(FlushOf(8, 17)).gfns, GfnRange::Of(Gfn(8), 17));
  EXPECT_THAT(CountsOf(with), ElementsAre(1, 1, 0, 1, 0, 0));
}

// Covers: ARM-39
TEST(TlbiTest, AboveTheLimitOfOneInstructionTheVmidGoes) {
  TlbiUnit unit(12, TlbiUnit::Ranges::kYes);
  EXPECT_FALSE(unit.Issue(FlushOf(0, kTlbiMaxGranules)).CoversAllGfns());
  EXPECT_THAT(CountsOf(unit), ElementsAre(0, 1, 0, 1, 0, 0));
  EXPECT_TRUE(unit.Issue(FlushOf(0, kTlbiMaxGranules + 1)).CoversAllGfns());
  EXPECT_THAT(CountsOf(unit), ElementsAre(0, 1, 1, 1, 0, 0));
}

TEST(TlbiTest, APartOfAGranuleIsInvalidatedAsAWhole) {
  TlbiUnit unit(/*granule_shift=*/16, TlbiUnit::Ranges::kYes);
  EXPECT_EQ(unit.Issue(FlushOf(15, 2)).gfns, GfnRange::Of(Gfn(0), 32));
  EXPECT_THAT(CountsOf(unit), ElementsAre(0, 1, 0, 1, 0, 0));
}

TEST(TlbiTest, AVcpuInvalidatesBothStagesForItself) {
  TlbiUnit unit(12, TlbiUnit::Ranges::kNo);
  unit.IssueLocal();
  EXPECT_THAT(CountsOf(unit), ElementsAre(0, 0, 0, 0, 1, 1));
}

}  // namespace
}  // namespace mmu
