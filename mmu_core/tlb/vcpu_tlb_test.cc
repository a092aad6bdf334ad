#include "mmu_core/tlb/vcpu_tlb.h"

#include <cstddef>
#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"

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

int CountOf(const VcpuTlb& tlb) {
  int count = 0;
  tlb.ForEach([&count](const TlbEntry&) { ++count; });
  return count;
}

TEST(VcpuTlbTest, NewTlbTranslatesNothing) {
  VcpuTlb tlb;
  EXPECT_EQ(tlb.Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(tlb.Lookup(PageNumber(0x1234)), nullptr);
  EXPECT_EQ(CountOf(tlb), 0);
}

TEST(VcpuTlbTest, EntryIsKeptAsInserted) {
  VcpuTlb tlb;
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
  VcpuTlb tlb;
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
  VcpuTlb tlb;
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
  VcpuTlb tlb;
  tlb.Insert(Entry(1, Level::k4K, 1));
  const uint64_t alias = 1 + VcpuTlb::kEntries4K;
  EXPECT_EQ(PfnOf(tlb, alias), 0u);
  tlb.Insert(Entry(alias, Level::k4K, 2));
  EXPECT_EQ(PfnOf(tlb, alias), 2u);
  EXPECT_EQ(PfnOf(tlb, 1), 0u);
}

TEST(VcpuTlbTest, HighestFrameNumberIsTranslated) {
  VcpuTlb tlb;
  const uint64_t last = (uint64_t{1} << VcpuTlb::kPageNumberBits) - 1;
  tlb.Insert(Entry(last, Level::k4K, 1));
  EXPECT_EQ(PfnOf(tlb, last), 1u);
  EXPECT_EQ(PfnOf(tlb, last - VcpuTlb::kEntries4K), 0u);
}

// Covers: TLB-12
TEST(VcpuTlbTest, StaleEntriesStayUntilTheFlushAndGoWithIt) {
  VcpuTlb tlb;
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
  VcpuTlb tlb;
  tlb.Insert(Entry(1, Level::k4K, 1));
  const int kAllEpochs = 1 << (64 - VcpuTlb::kPageNumberBits);
  for (int i = 0; i < kAllEpochs + 2; ++i) {
    tlb.FlushAll();
    ASSERT_EQ(tlb.Lookup(PageNumber(1)), nullptr) << i;
  }
}

TEST(VcpuTlbTest, FlushOfOneFrameDropsItInEverySize) {
  VcpuTlb tlb;
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
  VcpuTlb tlb;
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

}  // namespace
}  // namespace mmu
