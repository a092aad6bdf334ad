// The TLB of a vCPU on stage-2 tables.

#include "mmu_core/stage2/s2_tlb.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_options.h"

namespace mmu {
namespace {

class S2TlbTest : public ::testing::Test {
 protected:
  S2TlbTest()
      : tlb_({.flushes = TlbOptions::Flushes::kPrecise,
              .evictions = TlbOptions::Evictions::kNever}) {
    tlb_.Select(1);
  }

  static TlbEntry EntryOf(uint64_t gfn, Level level) {
    TlbEntry entry;
    entry.base_page = PageNumber(gfn);
    entry.gfn = Gfn(gfn);
    entry.pfn = Pfn(gfn);
    entry.level = level;
    return entry;
  }
  static TlbFlush FlushOf(uint64_t gfn, uint64_t pages, uint64_t entry_pages) {
    TlbFlush flush;
    flush.gfns = GfnRange::Of(Gfn(gfn), pages);
    flush.entry_pages = entry_pages;
    return flush;
  }

  S2Tlb<Arm4K> tlb_;
};

// Covers: ARM-06
TEST_F(S2TlbTest, TwoSizesOfOneAddressAreAConflict) {
  tlb_.Insert(EntryOf(512, Level{2}));
  EXPECT_FALSE(tlb_.HasConflict(PageNumber(600)));
  tlb_.Insert(EntryOf(600, Level{1}));
  EXPECT_TRUE(tlb_.HasConflict(PageNumber(600)));
  EXPECT_FALSE(tlb_.HasConflict(PageNumber(601)));
  tlb_.Flush(FlushOf(512, 512, 512));
  EXPECT_FALSE(tlb_.HasConflict(PageNumber(600)));
}

// A TLBI by IPA does not reach entries of both stages. Without the invalidation
// of stage 1 they would stay.
TEST_F(S2TlbTest, AFlushByIpaDropsAllCombinedEntries) {
  tlb_.Insert(EntryOf(1, Level{1}));
  tlb_.Insert(EntryOf(2, Level{1}));
  tlb_.Flush(FlushOf(1, 1, 1));
  EXPECT_EQ(tlb_.Lookup(PageNumber(1)), nullptr);
  EXPECT_EQ(tlb_.LookupStage2(PageNumber(1)), nullptr);
  EXPECT_EQ(tlb_.Lookup(PageNumber(2)), nullptr);
  ASSERT_NE(tlb_.LookupStage2(PageNumber(2)), nullptr);
  tlb_.InsertCombined(*tlb_.LookupStage2(PageNumber(2)));
  EXPECT_NE(tlb_.Lookup(PageNumber(2)), nullptr);
}

TEST_F(S2TlbTest, EntriesBelongToTheirVmid) {
  tlb_.Insert(EntryOf(1, Level{1}));
  tlb_.Select(2);
  EXPECT_EQ(tlb_.Lookup(PageNumber(1)), nullptr);
  EXPECT_EQ(tlb_.LookupStage2(PageNumber(1)), nullptr);
  tlb_.Insert(EntryOf(1, Level{1}));
  EXPECT_FALSE(tlb_.HasConflict(PageNumber(1)));
  tlb_.Select(1);
  EXPECT_NE(tlb_.Lookup(PageNumber(1)), nullptr);
}

// Covers: ARM-07
// Which combined entry is that of the page is not known.
TEST_F(S2TlbTest, AFaultDropsTheEntryOfItsPageAndAllCombinedEntries) {
  tlb_.Insert(EntryOf(1, Level{1}));
  tlb_.Insert(EntryOf(2, Level{1}));
  tlb_.FlushPage(PageNumber(1));
  EXPECT_EQ(tlb_.Lookup(PageNumber(1)), nullptr);
  EXPECT_EQ(tlb_.LookupStage2(PageNumber(1)), nullptr);
  EXPECT_EQ(tlb_.Lookup(PageNumber(2)), nullptr);
  EXPECT_NE(tlb_.LookupStage2(PageNumber(2)), nullptr);
}

}  // namespace
}  // namespace mmu
