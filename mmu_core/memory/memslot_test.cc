#include "mmu_core/memory/memslot.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/lpage_info.h"

namespace mmu {
namespace {

constexpr uint64_t k1GPages = PagesPer(Level::k1G);

Memslot MakeSlot(const HostMemory& host, Level host_level, uint64_t base_gfn,
                 uint64_t npages, uint64_t offset_in_backing = 0) {
  Memslot slot;
  slot.base_gfn = Gfn(base_gfn);
  slot.npages = npages;
  slot.backing =
      host.Allocate({BackingKind::kMetadataOnly,
                     (npages << kPageShift) + offset_in_backing, host_level})
          .value();
  slot.hva = slot.backing->hva() + offset_in_backing;
  slot.lpage_info =
      std::make_shared<LpageInfo>(slot.base_gfn, slot.npages, slot.hva);
  return slot;
}

// Covers: TRM-02
TEST(MemslotTest, FirstAndLastPageTranslateThereAndBack) {
  HostMemory host;
  const Memslot slot = MakeSlot(host, Level::k4K, 100, 50, 3 * kPageSize);
  for (uint64_t gfn : {uint64_t{100}, uint64_t{149}}) {
    const Hva hva = slot.HvaOf(Gfn(gfn));
    EXPECT_EQ(hva.value(), slot.hva.value() + (gfn - 100) * 4096);
    EXPECT_EQ(slot.base_gfn + ((hva - slot.hva) >> kPageShift), Gfn(gfn));
    EXPECT_EQ(slot.PfnOf(Gfn(gfn)), slot.backing->base_pfn() + 3 + (gfn - 100));
    EXPECT_EQ(slot.PageOf(Gfn(gfn)), gfn - 100);
  }
  EXPECT_FALSE(slot.Contains(Gfn(99)));
  EXPECT_FALSE(slot.Contains(Gfn(150)));
}

// Covers: SLOT-44
TEST(MemslotTest, MappingLevelIsLimitedByCallerSlotAndHost) {
  HostMemory host;
  const Memslot slot = MakeSlot(host, Level::k1G, 0, k1GPages + 512);
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(5), Level::k1G), Level::k1G);
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(5), Level::k2M), Level::k2M);
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(5), Level::k4K), Level::k4K);
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(5), Level::k256T), Level::k1G);
  // The second GiB reaches beyond the slot.
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(k1GPages), Level::k1G), Level::k2M);

  const Memslot host_2m = MakeSlot(host, Level::k2M, 0, k1GPages);
  EXPECT_EQ(host_2m.MaxMappingLevel(Gfn(5), Level::k1G), Level::k2M);
  const Memslot host_4k = MakeSlot(host, Level::k4K, 0, k1GPages);
  EXPECT_EQ(host_4k.MaxMappingLevel(Gfn(5), Level::k1G), Level::k4K);
}

// Covers: SLOT-42, SLOT-44
TEST(MemslotTest, MisalignedMemoryIsMappedSmaller) {
  HostMemory host;
  const Memslot by_4k = MakeSlot(host, Level::k1G, 0, k1GPages, kPageSize);
  EXPECT_EQ(by_4k.MaxMappingLevel(Gfn(512), Level::k1G), Level::k4K);
  const Memslot by_2m =
      MakeSlot(host, Level::k1G, 0, k1GPages, BytesPer(Level::k2M));
  EXPECT_EQ(by_2m.MaxMappingLevel(Gfn(512), Level::k1G), Level::k2M);
}

// Covers: SLOT-44
TEST(MemslotTest, SearchFromTheTopStopsAtTheFirstAllowedLevel) {
  HostMemory host;
  // The slot [512, 1024) of a GiB has no whole GiB, but 2 MiB.
  const Memslot slot =
      MakeSlot(host, Level::k1G, 512, 512, BytesPer(Level::k2M));
  ASSERT_TRUE(slot.lpage_info->Disallowed(Gfn(600), Level::k1G));
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(600), Level::k1G), Level::k2M);
  slot.lpage_info->Disallow(Gfn(600));
  EXPECT_EQ(slot.MaxMappingLevel(Gfn(1023), Level::k1G), Level::k4K);
}

// Covers: SLOT-54
TEST(MemslotTest, LoggingIsDecidedByTheFlagAndNotByTheBitmap) {
  Memslot slot;
  slot.npages = 64;
  slot.dirty_bitmap = std::make_shared<DirtyBitmap>(64, InitiallySet::kNo);
  EXPECT_FALSE(slot.dirty_log_enabled());
  slot.dirty_bitmap = nullptr;
  slot.flags = kMemslotLogDirtyPages;
  EXPECT_TRUE(slot.dirty_log_enabled());
}

TEST(MemslotTest, FlagsAreIndependent) {
  Memslot slot;
  slot.flags = kMemslotReadonly;
  EXPECT_TRUE(slot.readonly());
  EXPECT_FALSE(slot.invalid());
  EXPECT_FALSE(slot.dirty_log_enabled());
  slot.flags = kMemslotInvalid;
  EXPECT_FALSE(slot.readonly());
  EXPECT_TRUE(slot.invalid());
}

}  // namespace
}  // namespace mmu
