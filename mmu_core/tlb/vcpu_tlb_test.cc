#include "mmu_core/tlb/vcpu_tlb.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/tlb/paging_structure_cache.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/tlb/tlb_tag.h"

namespace mmu {
namespace {

TlbEntry Entry(uint64_t gfn, Level level, uint64_t pfn) {
  return TlbEntry{
      .base_page = PageNumber(gfn), .pfn = Pfn(pfn), .level = level};
}

// The pfn of the entry that translates `gfn`; 0 if there is none.
uint64_t PfnOf(const VcpuTlb& tlb, uint64_t gfn) {
  const TlbEntry* entry = tlb.Lookup(PageNumber(gfn));
  return entry == nullptr ? 0 : entry->pfn.value();
}

const PageTable kRoots[3];
TlbTag RootTag(int root) { return TlbTag::OfRoot(kRoots[root]); }

// A TLB with a context selected.
class SelectedTlb : public VcpuTlb {
 public:
  explicit SelectedTlb(const TlbOptions& options = {}) : VcpuTlb(options) {
    Select(RootTag(0));
  }
};

int CountOf(const VcpuTlb& tlb) {
  int count = 0;
  tlb.ForEach([&count](const TlbEntry&) { ++count; });
  return count;
}

TEST(VcpuTlbTest, NewTlbTranslatesNothing) {
  SelectedTlb tlb;
  EXPECT_EQ(tlb.Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(tlb.Lookup(PageNumber(0x1234)), nullptr);
  EXPECT_EQ(CountOf(tlb), 0);
}

TEST(VcpuTlbTest, EntryIsKeptAsInserted) {
  SelectedTlb tlb;
  std::byte page;
  tlb.Insert(TlbEntry{.base_page = PageNumber(5),
                      .pfn = Pfn(7),
                      .host = &page,
                      .root_id = 9,
                      .level = Level::k4K,
                      .writable = true,
                      .executable = false,
                      .dirty_set = true});
  const TlbEntry* entry = tlb.Lookup(PageNumber(5));
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->base_page, PageNumber(5));
  EXPECT_EQ(entry->pfn, Pfn(7));
  EXPECT_EQ(entry->host, &page);
  EXPECT_EQ(entry->root_id, 9u);
  EXPECT_TRUE(entry->writable);
  EXPECT_FALSE(entry->executable);
  EXPECT_TRUE(entry->dirty_set);
}

// Covers: TLB-12
TEST(VcpuTlbTest, EntryCoversItsWholePageAndNoMore) {
  SelectedTlb tlb;
  tlb.Insert(Entry(512, Level::k2M, 1));
  tlb.Insert(Entry(2 * 262144, Level::k1G, 2));
  EXPECT_EQ(PfnOf(tlb, 511), 0u);
  EXPECT_EQ(PfnOf(tlb, 512), 1u);
  EXPECT_EQ(PfnOf(tlb, 1023), 1u);
  EXPECT_EQ(PfnOf(tlb, 1024), 0u);
  EXPECT_EQ(PfnOf(tlb, 2 * 262144 - 1), 0u);
  EXPECT_EQ(PfnOf(tlb, 2 * 262144), 2u);
  EXPECT_EQ(PfnOf(tlb, 3 * 262144 - 1), 2u);
  EXPECT_EQ(PfnOf(tlb, 3 * 262144), 0u);
}

TEST(VcpuTlbTest, SmallestPageAnswersFirst) {
  SelectedTlb tlb;
  tlb.Insert(Entry(0, Level::k1G, 1));
  EXPECT_EQ(PfnOf(tlb, 3), 1u);
  tlb.Insert(Entry(0, Level::k2M, 2));
  EXPECT_EQ(PfnOf(tlb, 3), 2u);
  tlb.Insert(Entry(3, Level::k4K, 3));
  EXPECT_EQ(PfnOf(tlb, 3), 3u);
  EXPECT_EQ(PfnOf(tlb, 4), 2u);
  EXPECT_EQ(PfnOf(tlb, 512), 1u);
}

TEST(VcpuTlbTest, PagesThatShareASlotAreNotConfused) {
  SelectedTlb tlb;
  tlb.Insert(Entry(1, Level::k4K, 1));
  const uint64_t alias = 1 + VcpuTlb::kEntries4K;
  EXPECT_EQ(PfnOf(tlb, alias), 0u);
  tlb.Insert(Entry(alias, Level::k4K, 2));
  EXPECT_EQ(PfnOf(tlb, alias), 2u);
  EXPECT_EQ(PfnOf(tlb, 1), 0u);
}

TEST(VcpuTlbTest, HighestFrameNumberIsTranslated) {
  SelectedTlb tlb;
  const uint64_t last = (uint64_t{1} << VcpuTlb::kPageNumberBits) - 1;
  tlb.Insert(Entry(last, Level::k4K, 1));
  EXPECT_EQ(PfnOf(tlb, last), 1u);
  EXPECT_EQ(PfnOf(tlb, last - VcpuTlb::kEntries4K), 0u);
}

// Covers: TLB-12
TEST(VcpuTlbTest, StaleEntriesStayUntilTheFlushAndGoWithIt) {
  SelectedTlb tlb;
  tlb.Insert(Entry(1, Level::k4K, 1));
  tlb.Insert(Entry(512, Level::k2M, 2));
  tlb.Insert(Entry(262144, Level::k1G, 3));
  EXPECT_EQ(CountOf(tlb), 3);
  tlb.FlushAll();
  EXPECT_EQ(CountOf(tlb), 0);
  EXPECT_EQ(PfnOf(tlb, 1), 0u);
  EXPECT_EQ(PfnOf(tlb, 512), 0u);
  EXPECT_EQ(PfnOf(tlb, 262144), 0u);
  tlb.Insert(Entry(1, Level::k4K, 4));
  EXPECT_EQ(PfnOf(tlb, 1), 4u);
  EXPECT_EQ(CountOf(tlb), 1);
}

TEST(VcpuTlbTest, NoEntryComesBackHoweverManyFlushesPass) {
  SelectedTlb tlb;
  tlb.Insert(Entry(1, Level::k4K, 1));
  const int kAllEpochs = 1 << (64 - VcpuTlb::kPageNumberBits);
  for (int i = 0; i < kAllEpochs + 2; ++i) {
    tlb.FlushAll();
    ASSERT_EQ(tlb.Lookup(PageNumber(1)), nullptr) << i;
  }
}

TEST(VcpuTlbTest, FlushOfOneFrameDropsItInEverySize) {
  SelectedTlb tlb;
  tlb.Insert(Entry(3, Level::k4K, 1));
  tlb.Insert(Entry(4, Level::k4K, 2));
  tlb.Insert(Entry(0, Level::k2M, 3));
  tlb.Insert(Entry(512, Level::k2M, 4));
  tlb.Insert(Entry(0, Level::k1G, 5));
  tlb.FlushPage(PageNumber(3));
  EXPECT_EQ(PfnOf(tlb, 3), 0u);
  EXPECT_EQ(PfnOf(tlb, 4), 2u);
  EXPECT_EQ(PfnOf(tlb, 512), 4u);
  EXPECT_EQ(CountOf(tlb), 2);
}

TEST(VcpuTlbTest, RandomDropsForgetAtMostOneEntryEachAndReachAll) {
  SelectedTlb tlb;
  tlb.Insert(Entry(3, Level::k4K, 1));
  tlb.Insert(Entry(0, Level::k2M, 2));
  tlb.Insert(Entry(0, Level::k1G, 3));
  int left = 3;
  for (uint64_t random = 0; random < 10'000; ++random) {
    tlb.DropRandom(random);
    const int now = CountOf(tlb);
    ASSERT_GE(now, left - 1);
    left = now;
  }
  EXPECT_EQ(left, 0);
}

constexpr TlbOptions kPreciseTlb = {.flushes = TlbOptions::Flushes::kPrecise,
                                    .evictions = TlbOptions::Evictions::kNever,
                                    .seed = 0};

// An entry for pages whose gfns differ from the page numbers.
TlbEntry EntryOfGfn(uint64_t page, uint64_t gfn, Level level = Level::k4K) {
  TlbEntry entry = Entry(page, level, gfn);
  entry.gfn = Gfn(gfn);
  return entry;
}

TlbFlush FlushOf(uint64_t gfn, uint64_t pages, FlushDepth depth) {
  return {.mmu = std::nullopt,
          .gfns = GfnRange::Of(Gfn(gfn), pages),
          .depth = depth};
}

// ---- Contexts ----

TEST(VcpuTlbTest, WithoutAContextNothingIsTranslated) {
  VcpuTlb tlb;
  EXPECT_EQ(tlb.Lookup(PageNumber(0)), nullptr) << "an empty slot is no entry";
  tlb.Select(RootTag(0));
  tlb.Insert(Entry(0, Level::k4K, 7));
  tlb.SelectNone();
  EXPECT_EQ(tlb.Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(CountOf(tlb), 0);
  tlb.Select(RootTag(0));
  EXPECT_EQ(PfnOf(tlb, 0), 7u);
}

TEST(VcpuTlbTest, ContextsDoNotSeeEachOtherAndStayAsTheyWere) {
  VcpuTlb tlb(kPreciseTlb);
  for (int root = 0; root < 3; ++root) {
    tlb.Select(RootTag(root));
    EXPECT_EQ(PfnOf(tlb, 5), 0u);
    tlb.Insert(Entry(5, Level::k4K, 10 + static_cast<uint64_t>(root)));
  }
  tlb.Select(TlbTag::OfPcid(0));
  EXPECT_EQ(PfnOf(tlb, 5), 0u);
  for (int root = 0; root < 3; ++root) {
    tlb.Select(RootTag(root));
    EXPECT_EQ(PfnOf(tlb, 5), 10 + static_cast<uint64_t>(root));
  }
}

TEST(VcpuTlbTest, TagsOfPcidsAndOfRootsDiffer) {
  EXPECT_NE(TlbTag::OfPcid(0), TlbTag::OfPcid(1));
  EXPECT_NE(RootTag(0), RootTag(1));
  EXPECT_NE(RootTag(0), TlbTag::OfPcid(0));
  EXPECT_TRUE(TlbTag::OfPcid(4095).IsLinear());
  EXPECT_FALSE(RootTag(0).IsLinear());
}

class EachTlbTest : public ::testing::TestWithParam<bool> {
 protected:
  VcpuTlb tlb_{GetParam() ? kPreciseTlb : TlbOptions()};
};

TEST_P(EachTlbTest, AFlushOfOneContextLeavesTheOthers) {
  for (int root = 0; root < 2; ++root) {
    tlb_.Select(RootTag(root));
    tlb_.Insert(Entry(5 + static_cast<uint64_t>(root), Level::k4K, 1));
  }
  tlb_.FlushContext(RootTag(0));
  EXPECT_EQ(PfnOf(tlb_, 6), 1u) << "the selected one";
  tlb_.FlushContext(RootTag(1));
  EXPECT_EQ(PfnOf(tlb_, 6), 0u);
  tlb_.Insert(Entry(6, Level::k4K, 2));
  EXPECT_EQ(PfnOf(tlb_, 6), 2u) << "it is still the selected one";
  tlb_.Select(RootTag(0));
  EXPECT_EQ(PfnOf(tlb_, 5), 0u);
  tlb_.FlushContext(RootTag(2));  // no such context
}

// The numbers of contexts begin anew in between.
TEST_P(EachTlbTest, NoEntryComesBackHoweverManyFlushesOfAnotherContextPass) {
  tlb_.Select(RootTag(0));
  tlb_.Insert(Entry(5, Level::k4K, 1));
  tlb_.Insert(Entry(5 + VcpuTlb::kEntries4K, Level::k4K, 1));
  if (tlb_.tables() != nullptr) {
    tlb_.tables()->Insert({.table = nullptr,
                           .level = Level::k4K,
                           .first = PageNumber(0),
                           .rights = kAllRights});
  }
  const int kAllNumbers = 1 << (64 - VcpuTlb::kPageNumberBits);
  for (int i = 0; i < kAllNumbers + 2; ++i) {
    tlb_.Select(RootTag(1));
    ASSERT_EQ(PfnOf(tlb_, 5), 0u) << i;
    if (tlb_.tables() != nullptr) {
      ASSERT_FALSE(
          tlb_.tables()->Find(PageNumber(5), Level::k512G).has_value());
    }
    tlb_.FlushContext(RootTag(1));
  }
}

TEST_P(EachTlbTest, AFlushOfAllDropsEveryContext) {
  for (int root = 0; root < 3; ++root) {
    tlb_.Select(RootTag(root));
    tlb_.Insert(Entry(5 + static_cast<uint64_t>(root), Level::k4K, 1));
  }
  tlb_.FlushAll();
  for (int root = 0; root < 3; ++root) {
    tlb_.Select(RootTag(root));
    EXPECT_EQ(CountOf(tlb_), 0);
    EXPECT_EQ(PfnOf(tlb_, 5 + static_cast<uint64_t>(root)), 0u);
  }
}

TEST_P(EachTlbTest, APageIsInvalidatedInOneContextOnly) {
  for (const auto invalidate : {&VcpuTlb::InvalidatePage, &VcpuTlb::Invlpg}) {
    for (const uint16_t pcid : {1, 2}) {
      tlb_.Select(TlbTag::OfPcid(pcid));
      tlb_.Insert(Entry(5, Level::k4K, pcid));
      tlb_.Insert(Entry(6 + pcid, Level::k4K, 9));
    }
    (tlb_.*invalidate)(TlbTag::OfPcid(1), PageNumber(5));
    EXPECT_EQ(PfnOf(tlb_, 5), 2u);
    tlb_.Select(TlbTag::OfPcid(1));
    EXPECT_EQ(PfnOf(tlb_, 5), 0u);
    EXPECT_EQ(PfnOf(tlb_, 7), 9u);
    (tlb_.*invalidate)(TlbTag::OfPcid(3), PageNumber(5));  // no such context
  }
}

TEST_P(EachTlbTest, MoreTagsThanContextsLoseEntriesButMixNone) {
  for (uint16_t pcid = 0; pcid < 1000; ++pcid) {
    tlb_.Select(TlbTag::OfPcid(pcid));
    ASSERT_EQ(PfnOf(tlb_, 5), 0u);
    tlb_.Insert(Entry(5, Level::k4K, 1 + pcid));
    ASSERT_EQ(PfnOf(tlb_, 5), 1u + pcid);
  }
  for (uint16_t pcid = 0; pcid < 1000; ++pcid) {
    tlb_.Select(TlbTag::OfPcid(pcid));
    const uint64_t pfn = PfnOf(tlb_, 5);
    ASSERT_TRUE(pfn == 0 || pfn == 1u + pcid) << pcid;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, EachTlbTest, ::testing::Bool());

// ---- Precise flushes ----

// Covers: TLB-12
TEST(PreciseTlbTest, AFlushOfARangeDropsWhatOverlapsItInEveryContext) {
  VcpuTlb tlb(kPreciseTlb);
  for (int root = 0; root < 2; ++root) {
    tlb.Select(RootTag(root));
    tlb.Insert(EntryOfGfn(1, 1));
    tlb.Insert(EntryOfGfn(2, 2));
    tlb.Insert(EntryOfGfn(512, 512, Level::k2M));
    tlb.Insert(EntryOfGfn(1024, 1024, Level::k2M));
    // In a place that the other context does not use.
    tlb.Insert(EntryOfGfn(100 + static_cast<uint64_t>(root), 100));
  }
  tlb.Flush(FlushOf(2, 511, FlushDepth::kLeafs), TlbPages::kGuestPhysical);
  for (int root = 0; root < 2; ++root) {
    tlb.Select(RootTag(root));
    EXPECT_NE(PfnOf(tlb, 1), 0u);
    EXPECT_EQ(PfnOf(tlb, 2), 0u);
    EXPECT_EQ(PfnOf(tlb, 513), 0u) << "one page of it is in the range";
    EXPECT_NE(PfnOf(tlb, 1025), 0u);
    EXPECT_EQ(PfnOf(tlb, 100 + static_cast<uint64_t>(root)), 0u);
  }
}

// On shadow pages the page numbers are not the gfns.
TEST(PreciseTlbTest, ARangeIsOneOfGfnsNotOfPages) {
  VcpuTlb tlb(kPreciseTlb);
  tlb.Select(TlbTag::OfPcid(1));
  tlb.Insert(EntryOfGfn(10, 77));
  tlb.Insert(EntryOfGfn(77, 10));
  tlb.Insert(EntryOfGfn(900, 77));
  tlb.Flush(FlushOf(77, 1, FlushDepth::kLeafs), TlbPages::kOther);
  EXPECT_EQ(PfnOf(tlb, 10), 0u);
  EXPECT_NE(PfnOf(tlb, 77), 0u);
  EXPECT_EQ(PfnOf(tlb, 900), 0u) << "an alias";
}

TEST(PreciseTlbTest, AFlushOfAllGfnsDropsEverything) {
  VcpuTlb tlb(kPreciseTlb);
  tlb.Select(RootTag(0));
  tlb.Insert(EntryOfGfn(1, 1));
  tlb.tables()->Insert({.table = nullptr,
                        .level = Level::k4K,
                        .first = PageNumber(0),
                        .rights = kAllRights});
  tlb.Flush(TlbFlush(), TlbPages::kGuestPhysical);
  EXPECT_EQ(CountOf(tlb), 0);
  EXPECT_FALSE(tlb.tables()->Find(PageNumber(1), Level::k2M).has_value());
}

// Whichever allocation fails, one entry at most is forgotten, and the TLB is
// sound afterwards.
TEST(PreciseTlbTest, WithoutMemoryAnEntryIsForgottenAndNoOther) {
  constexpr uint64_t kPages = VcpuTlb::kEntries4K + 100;
  for (uint64_t n = 1;; ++n) {
    VcpuTlb tlb(kPreciseTlb);
    tlb.Select(RootTag(0));
    const auto insert = [&] {
      for (uint64_t page = 0; page < kPages; ++page) {
        tlb.Insert(EntryOfGfn(page, page + 1));
      }
      return absl::OkStatus();
    };
    if (!testing::FailOneAllocation(n, insert).failed) break;
    uint64_t forgotten = 0;
    for (uint64_t page = 0; page < kPages; ++page) {
      const uint64_t pfn = PfnOf(tlb, page);
      forgotten += pfn == 0;
      ASSERT_TRUE(pfn == 0 || pfn == page + 1) << "page " << page;
    }
    ASSERT_LE(forgotten, 1u);
    ASSERT_TRUE(insert().ok());
    ASSERT_EQ(CountOf(tlb), static_cast<int>(kPages));
  }
}

TEST(PreciseTlbTest, WithoutMemoryATableIsNotCachedAndAllOthersAre) {
  constexpr uint64_t kTables = 100;
  for (uint64_t n = 1;; ++n) {
    VcpuTlb tlb(kPreciseTlb);
    tlb.Select(RootTag(0));
    const auto insert = [&] {
      for (uint64_t i = 0; i < kTables; ++i) {
        CachedTable table;
        table.first = PageNumber(i * 512);
        tlb.tables()->Insert(table);
      }
      return absl::OkStatus();
    };
    const auto cached = [&] {
      uint64_t count = 0;
      tlb.ForEachTableIn(RootTag(0), [&](const CachedTable&) { ++count; });
      return count;
    };
    if (!testing::FailOneAllocation(n, insert).failed) break;
    ASSERT_GE(cached(), kTables - 1);
    ASSERT_TRUE(insert().ok());
    ASSERT_EQ(cached(), kTables);
  }
}

TEST(PreciseTlbTest, NothingIsEvictedAndAFlushFindsWhatWasPushedOut) {
  VcpuTlb tlb(kPreciseTlb);
  tlb.Select(RootTag(0));
  constexpr uint64_t kPages = 4 * VcpuTlb::kEntries4K;
  for (uint64_t page = 0; page < kPages; ++page) {
    tlb.Insert(EntryOfGfn(page, page + 1));
  }
  EXPECT_EQ(CountOf(tlb), static_cast<int>(kPages));
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(PfnOf(tlb, page), page + 1);
  }
  // Page 5 is pushed out by page 5 + kEntries4K.
  tlb.FlushPage(PageNumber(5));
  EXPECT_EQ(PfnOf(tlb, 5), 0u);
  EXPECT_NE(PfnOf(tlb, 5 + VcpuTlb::kEntries4K), 0u);
  tlb.Flush(FlushOf(7, 1, FlushDepth::kLeafs), TlbPages::kGuestPhysical);
  EXPECT_EQ(PfnOf(tlb, 6), 0u);
  tlb.Insert(EntryOfGfn(8, 1));
  EXPECT_EQ(PfnOf(tlb, 8), 1u) << "the newer entry of a page";
  tlb.Insert(EntryOfGfn(8 + VcpuTlb::kEntries4K, 2));
  EXPECT_EQ(PfnOf(tlb, 8), 1u) << "now pushed out";
  tlb.Select(RootTag(1));
  tlb.FlushContext(RootTag(0));
  tlb.Select(RootTag(0));
  EXPECT_EQ(CountOf(tlb), 0);
}

TEST(PreciseTlbTest, RandomEvictionsFollowTheSeed) {
  const auto left = [](uint64_t seed) {
    VcpuTlb tlb({.flushes = TlbOptions::Flushes::kPrecise,
                 .evictions = TlbOptions::Evictions::kRandom,
                 .seed = seed});
    tlb.Select(RootTag(0));
    std::vector<uint64_t> pages;
    for (uint64_t i = 0; i < 10'000; ++i) tlb.Insert(EntryOfGfn(i % 1000, 1));
    for (uint64_t i = 0; i < 1000; ++i) {
      if (PfnOf(tlb, i) != 0) pages.push_back(i);
    }
    return pages;
  };
  EXPECT_EQ(left(1), left(1));
  EXPECT_NE(left(1), left(2));
  EXPECT_LT(left(1).size(), 1000u);
  EXPECT_GT(left(1).size(), 500u);
}

// ---- The paging-structure cache ----

class CachedTablesTest : public ::testing::Test {
 protected:
  CachedTablesTest() { tlb_.Select(RootTag(0)); }
  void Cache(uint64_t page, Level level) {
    tlb_.tables()->Insert(
        {.table = &table_,
         .level = level,
         .first = RoundDown(PageNumber(page), ParentOf(level)),
         .rights = kMayRead});
  }
  // The level of the table from which a walk for `page` begins.
  Level StartFor(uint64_t page) {
    const auto found = tlb_.tables()->Find(PageNumber(page), Level::k512G);
    return found.has_value() ? found->level : Level::k512G;
  }

  PageTable table_;
  VcpuTlb tlb_{kPreciseTlb};
};

TEST_F(CachedTablesTest, AWalkBeginsAtTheDeepestTable) {
  EXPECT_EQ(StartFor(5), Level::k512G);
  Cache(5, Level::k1G);
  EXPECT_EQ(StartFor(5), Level::k1G);
  Cache(5, Level::k4K);
  EXPECT_EQ(StartFor(5), Level::k4K);
  EXPECT_EQ(StartFor(511), Level::k4K);
  EXPECT_EQ(StartFor(512), Level::k1G);
  EXPECT_EQ(tlb_.tables()->Find(PageNumber(5), Level::k512G)->rights, kMayRead);
  EXPECT_FALSE(tlb_.tables()->Find(PageNumber(5), Level::k4K).has_value())
      << "only tables below the top";
}

TEST_F(CachedTablesTest, AFlushOfLeafsKeepsTheTables) {
  Cache(5, Level::k4K);
  tlb_.Flush(FlushOf(5, 1, FlushDepth::kLeafs), TlbPages::kGuestPhysical);
  EXPECT_EQ(StartFor(5), Level::k4K);
}

TEST_F(CachedTablesTest, AFlushOfTablesDropsThoseOverTheRange) {
  Cache(5, Level::k4K);
  Cache(512, Level::k4K);
  Cache(5, Level::k1G);
  tlb_.Flush(FlushOf(5, 1, FlushDepth::kTables), TlbPages::kGuestPhysical);
  EXPECT_EQ(StartFor(5), Level::k512G);
  EXPECT_EQ(StartFor(512), Level::k4K);
}

TEST_F(CachedTablesTest, OtherPagesLoseAllTables) {
  Cache(5, Level::k4K);
  Cache(5'000'000, Level::k2M);
  tlb_.Flush(FlushOf(1 << 20, 1, FlushDepth::kTables), TlbPages::kOther);
  EXPECT_EQ(StartFor(5), Level::k512G);
  EXPECT_EQ(StartFor(5'000'000), Level::k512G);
}

// Covers: PF-18
TEST_F(CachedTablesTest, AFaultDropsTheTablesOfItsPage) {
  Cache(5, Level::k4K);
  Cache(5, Level::k1G);
  Cache(1 << 20, Level::k2M);
  tlb_.FlushPage(PageNumber(6));
  EXPECT_EQ(StartFor(5), Level::k512G);
  EXPECT_EQ(StartFor(1 << 20), Level::k2M);
}

TEST_F(CachedTablesTest, InvlpgDropsAllTablesOfItsContextOnly) {
  Cache(1 << 20, Level::k2M);
  tlb_.Select(RootTag(1));
  Cache(1 << 20, Level::k2M);
  tlb_.Invlpg(RootTag(0), PageNumber(5));
  EXPECT_EQ(StartFor(1 << 20), Level::k2M);
  tlb_.Select(RootTag(0));
  EXPECT_EQ(StartFor(1 << 20), Level::k512G);
}

// The manual demands less of it than of INVLPG.
TEST_F(CachedTablesTest, InvpcidOfAnAddressDropsTheTablesOfItsPageOnly) {
  Cache(5, Level::k4K);
  Cache(1 << 20, Level::k2M);
  tlb_.Select(RootTag(1));
  Cache(5, Level::k4K);
  tlb_.InvalidatePage(RootTag(0), PageNumber(6));
  EXPECT_EQ(StartFor(5), Level::k4K);
  tlb_.Select(RootTag(0));
  EXPECT_EQ(StartFor(5), Level::k512G);
  EXPECT_EQ(StartFor(1 << 20), Level::k2M);
}

TEST_F(CachedTablesTest, FlushesOfContextsDropTheirTables) {
  Cache(5, Level::k4K);
  tlb_.Select(RootTag(1));
  EXPECT_EQ(StartFor(5), Level::k512G) << "of another context";
  Cache(5, Level::k4K);
  tlb_.FlushContext(RootTag(0));
  EXPECT_EQ(StartFor(5), Level::k4K);
  tlb_.FlushAll();
  EXPECT_EQ(StartFor(5), Level::k512G);
}

TEST_F(CachedTablesTest, ATlbThatFlushesAsAWholeHasNone) {
  VcpuTlb whole;
  EXPECT_EQ(whole.tables(), nullptr);
}

}  // namespace
}  // namespace mmu
