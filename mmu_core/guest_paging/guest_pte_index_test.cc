#include "mmu_core/guest_paging/guest_pte_index.h"

#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {
namespace {

PageRole FourByte(int level, int quadrant) {
  return PageRole::Of({.level = level,
                       .has_4_byte_gpte = true,
                       .quadrant = quadrant,
                       .access = kAllRights});
}

constexpr PageRole kEightByte =
    PageRole::Of({.level = 2, .access = kAllRights});

// Covers: ROLE-14
TEST(GuestPteIndexTest, ADirectoryEntryIsTwoSptesInOneQuadrant) {
  // Entry 700 maps 4 MiB at 2800 MiB, in the third GiB.
  for (int quadrant = 0; quadrant < 4; ++quadrant) {
    const std::optional<SpteIndices> sptes =
        SptesOfGuestPte(FourByte(2, quadrant), 700 * 4);
    if (quadrant == 2) {
      EXPECT_EQ(sptes, (SpteIndices{.first = (2800 - 2048) / 2, .count = 2}));
    } else {
      EXPECT_EQ(sptes, std::nullopt);
    }
  }
}

// Covers: ROLE-14
TEST(GuestPteIndexTest, EachByteOfAnEntryIsPartOfIt) {
  for (uint64_t byte = 0; byte < 4; ++byte) {
    EXPECT_EQ(SptesOfGuestPte(FourByte(1, 1), 513 * 4 + byte),
              (SpteIndices{.first = 1, .count = 1}));
    EXPECT_EQ(SptesOfGuestPte(FourByte(2, 0), 5 * 4 + byte),
              (SpteIndices{.first = 10, .count = 2}));
    EXPECT_EQ(SptesOfGuestPte(kEightByte, 511 * 8 + 4 + byte),
              (SpteIndices{.first = 511, .count = 1}));
  }
}

// Covers: ROLE-15
TEST(GuestPteIndexTest, TheSecondQuadrantOfATableStartsAtEntry512) {
  EXPECT_EQ(GuestPteIndex(FourByte(1, 0), 0), 0);
  EXPECT_EQ(GuestPteIndex(FourByte(1, 1), 0), 512);
  EXPECT_EQ(GuestPteIndex(FourByte(1, 1), 511), 1023);
  EXPECT_EQ(GuestPteIndex(FourByte(2, 3), 511), 1023);
  EXPECT_EQ(GuestPteIndex(kEightByte, 511), 511);
}

// Covers: ROLE-14, ROLE-15
TEST(GuestPteIndexTest, EverySpteBelongsToTheEntryThatLeadsToIt) {
  for (const int level : {1, 2}) {
    const int quadrants = level == 1 ? 2 : 4;
    std::set<std::pair<int, int>> seen;
    for (uint64_t entry = 0; entry < 1024; ++entry) {
      int found = 0;
      for (int quadrant = 0; quadrant < quadrants; ++quadrant) {
        const PageRole role = FourByte(level, quadrant);
        const std::optional<SpteIndices> sptes =
            SptesOfGuestPte(role, entry * 4);
        if (!sptes.has_value()) continue;
        ++found;
        EXPECT_EQ(sptes->count, level);
        for (int i = 0; i < sptes->count; ++i) {
          EXPECT_EQ(GuestPteIndex(role, sptes->first + i),
                    static_cast<int>(entry));
          EXPECT_TRUE(seen.insert({quadrant, sptes->first + i}).second);
        }
      }
      EXPECT_EQ(found, 1);
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(quadrants * kEntriesPerTable));
  }
}

}  // namespace
}  // namespace mmu
