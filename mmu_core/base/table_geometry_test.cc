#include "mmu_core/base/table_geometry.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

constexpr uint64_t kKib = uint64_t{1} << 10;
constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kGib = uint64_t{1} << 30;

static_assert(TableGeometry<X86Geometry>);

// TableGeometry accepts Good and rejects every type below, which breaks one of
// its rules.
struct Good : Granule<12> {
  static constexpr Level kMaxLevel{4};
  static constexpr Level kMaxLeafLevel{3};
  static constexpr int kMaxRootTables = 1;
};
struct GranuleBelowAGfn : Granule<11> {
  static constexpr Level kMaxLevel{4};
  static constexpr Level kMaxLeafLevel{3};
  static constexpr int kMaxRootTables = 1;
};
struct LeafAboveTheRoot : Good {
  static constexpr Level kMaxLeafLevel{5};
};
struct ThreeRootTables : Good {
  static constexpr int kMaxRootTables = 3;
};
struct TooManyBits : Good {
  static constexpr Level kMaxLevel{6};
};
static_assert(TableGeometry<Good>);
static_assert(!TableGeometry<Granule<12>>, "it has no levels");
static_assert(!TableGeometry<GranuleBelowAGfn>);
static_assert(!TableGeometry<LeafAboveTheRoot>);
static_assert(!TableGeometry<ThreeRootTables>);
static_assert(!TableGeometry<TooManyBits>);

// The bits of an input address that are the index at level `arm_level` of the
// Arm ARM.
struct IndexBits {
  int arm_level;
  int high;
  int low;
};

// The index at each level takes the bits of its field and no others.
template <typename G>
void ExpectIndexBits(const std::vector<IndexBits>& fields) {
  for (const IndexBits& f : fields) {
    const Level level = FromArmLevel(f.arm_level);
    for (int bit = 12; bit < 48; ++bit) {
      const int expected =
          f.low <= bit && bit <= f.high ? 1 << (bit - f.low) : 0;
      EXPECT_EQ(IndexOf<G>(ToGfn(Gpa(uint64_t{1} << bit)), level), expected)
          << "level " << f.arm_level << ", bit " << bit;
    }
  }
}

// DDI0487, D8.2, translation using the 4KB granule.
TEST(TableGeometryTest, Arm4KIsAsInTheManual) {
  EXPECT_EQ(Arm4K::kGranuleBytes, 4 * kKib);
  EXPECT_EQ(Arm4K::kEntryBits, 9);
  EXPECT_EQ(Arm4K::kEntriesPerTable, 512);
  EXPECT_EQ(BytesPer<Arm4K>(FromArmLevel(3)), 4 * kKib);
  EXPECT_EQ(BytesPer<Arm4K>(FromArmLevel(2)), 2 * kMib);
  EXPECT_EQ(BytesPer<Arm4K>(FromArmLevel(1)), 1 * kGib);
  EXPECT_EQ(BytesPer<Arm4K>(Arm4K::kMaxLeafLevel), 1 * kGib);
  EXPECT_EQ(BytesPer<Arm4K>(FromArmLevel(0)), 512 * kGib);
  ExpectIndexBits<Arm4K>({{0, 47, 39}, {1, 38, 30}, {2, 29, 21}, {3, 20, 12}});
}

// DDI0487, D8.2, translation using the 16KB granule.
TEST(TableGeometryTest, Arm16KIsAsInTheManual) {
  EXPECT_EQ(Arm16K::kGranuleBytes, 16 * kKib);
  EXPECT_EQ(Arm16K::kEntryBits, 11);
  EXPECT_EQ(Arm16K::kEntriesPerTable, 2048);
  EXPECT_EQ(BytesPer<Arm16K>(FromArmLevel(3)), 16 * kKib);
  EXPECT_EQ(BytesPer<Arm16K>(FromArmLevel(2)), 32 * kMib);
  EXPECT_EQ(BytesPer<Arm16K>(Arm16K::kMaxLeafLevel), 32 * kMib);
  EXPECT_EQ(BytesPer<Arm16K>(FromArmLevel(1)), 64 * kGib);
  EXPECT_EQ(BytesPer<Arm16K>(FromArmLevel(0)), 128 * 1024 * kGib);
  ExpectIndexBits<Arm16K>({{0, 47, 47}, {1, 46, 36}, {2, 35, 25}, {3, 24, 14}});
}

// DDI0487, D8.2, translation using the 64KB granule.
TEST(TableGeometryTest, Arm64KIsAsInTheManual) {
  EXPECT_EQ(Arm64K::kGranuleBytes, 64 * kKib);
  EXPECT_EQ(Arm64K::kEntryBits, 13);
  EXPECT_EQ(Arm64K::kEntriesPerTable, 8192);
  EXPECT_EQ(BytesPer<Arm64K>(FromArmLevel(3)), 64 * kKib);
  EXPECT_EQ(BytesPer<Arm64K>(FromArmLevel(2)), 512 * kMib);
  EXPECT_EQ(BytesPer<Arm64K>(Arm64K::kMaxLeafLevel), 512 * kMib);
  EXPECT_EQ(BytesPer<Arm64K>(FromArmLevel(1)), 4 * 1024 * kGib);
  ExpectIndexBits<Arm64K>({{1, 47, 42}, {2, 41, 29}, {3, 28, 16}});
}

TEST(TableGeometryTest, AGranuleIsAsManyGfnsAsItHas4KPages) {
  EXPECT_EQ(PagesPer<Arm4K>(Level{1}), 1u);
  EXPECT_EQ(PagesPer<Arm16K>(Level{1}), 4u);
  EXPECT_EQ(PagesPer<Arm64K>(Level{1}), 16u);
  EXPECT_EQ(PagesPer<Arm16K>(Level{2}), 4u * 2048);
  EXPECT_EQ(PagesPer<Arm64K>(Level{2}), 16u * 8192);
}

TEST(TableGeometryTest, TheGfnsOfOneGranuleShareItsEntry) {
  // The third granule of the table that maps the second 512 MiB.
  const Gfn first(16u * 8192 + 2 * 16);
  for (uint64_t i = 0; i < 16; ++i) {
    const Gfn gfn = first + i;
    EXPECT_EQ(IndexOf<Arm64K>(gfn, Level{1}), 2);
    EXPECT_EQ(IndexOf<Arm64K>(gfn, Level{2}), 1);
    EXPECT_EQ(RoundDown<Arm64K>(gfn, Level{1}), first);
    EXPECT_EQ(RoundDown<Arm64K>(gfn, Level{2}), Gfn(16u * 8192));
    EXPECT_EQ(RoundUp<Arm64K>(gfn, Level{1}), i == 0 ? first : first + 16);
    EXPECT_EQ(IsAligned<Arm64K>(gfn, Level{1}), i == 0);
  }
  EXPECT_EQ(IndexOf<Arm64K>(first - 1, Level{1}), 1);
  EXPECT_EQ(IndexOf<Arm64K>(first + 16, Level{1}), 3);
}

TEST(TableGeometryTest, TheFunctionsOfX86AreThoseOfItsGeometry) {
  EXPECT_EQ(kEntryBits, 9);
  EXPECT_EQ(kEntriesPerTable, 512);
  const Gfn gfn(0x1'2345'6789);
  for (Level level = Level::k4K; level <= X86Geometry::kMaxLevel;
       level = ParentOf(level)) {
    EXPECT_EQ(PagesShift(level), 9 * (ToInt(level) - 1));
    EXPECT_EQ(PagesPer(level), PagesPer<X86Geometry>(level));
    EXPECT_EQ(BytesPer(level), BytesPer<X86Geometry>(level));
    EXPECT_EQ(IndexOf(gfn, level), IndexOf<X86Geometry>(gfn, level));
    EXPECT_EQ(RoundDown(gfn, level), RoundDown<X86Geometry>(gfn, level));
    EXPECT_EQ(RoundUp(gfn, level), RoundUp<X86Geometry>(gfn, level));
    EXPECT_EQ(IsAligned(gfn, level), IsAligned<X86Geometry>(gfn, level));
  }
}

}  // namespace
}  // namespace mmu
