#include "client/working_set/cells.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/working_set/picture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kPage = kPageBytes;

// Ages in seconds, "-" for never young and "." for absent, with blanks between.
std::string Ages(const HeatSlot& slot) {
  std::string text;
  for (const HeatCell& cell : slot.cells) {
    if (!text.empty()) text += " ";
    switch (cell.kind) {
      case HeatCell::Kind::kAbsent:
        text += ".";
        break;
      case HeatCell::Kind::kNeverYoung:
        text += "-";
        break;
      case HeatCell::Kind::kAged:
        absl::StrAppend(&text, absl::ToInt64Seconds(cell.age));
    }
  }
  return text;
}

AgedExtent Aged(int64_t page, int64_t page_count, int seconds) {
  return {{page * kPage, page_count * kPage}, absl::Seconds(seconds)};
}

AgedExtent NeverYoung(int64_t page, int64_t page_count) {
  return {{page * kPage, page_count * kPage}, std::nullopt};
}

TEST(CellsTest, ACellHasTheAgeOfItsYoungestPage) {
  const std::vector<HeatSlot> heat =
      MakeHeat({Aged(0, 1, 30), Aged(1, 1, 10), Aged(3, 1, 40),
                NeverYoung(2, 1), NeverYoung(4, 2)},
               {{.slot = 3, .range = {0, 8 * kPage}}}, 4);
  ASSERT_EQ(heat.size(), 1u);
  EXPECT_EQ(heat[0].slot, 3);
  EXPECT_EQ(heat[0].gpa_bytes, 0);
  EXPECT_EQ(heat[0].size_bytes, 8 * kPage);
  EXPECT_EQ(heat[0].cell_bytes, 2 * kPage);
  EXPECT_EQ(Ages(heat[0]), "10 40 - .");
}

TEST(CellsTest, TheOrderOfExtentsDoesNotMatter) {
  std::vector<AgedExtent> extents = {Aged(0, 3, 30), Aged(1, 4, 10),
                                     NeverYoung(0, 7), Aged(6, 1, 5)};
  const auto before = [](const AgedExtent& a, const AgedExtent& b) {
    return a.range.size_bytes < b.range.size_bytes;
  };
  std::sort(extents.begin(), extents.end(), before);
  do {
    const std::vector<HeatSlot> heat =
        MakeHeat(extents, {{.slot = 0, .range = {0, 8 * kPage}}}, 8);
    ASSERT_EQ(heat.size(), 1u);
    EXPECT_EQ(Ages(heat[0]), "30 10 10 10 10 - 5 .");
  } while (std::next_permutation(extents.begin(), extents.end(), before));
}

TEST(CellsTest, ExtentsLieAcrossSlotsAndOutsideOfThem) {
  const std::vector<HeatSlot> heat =
      MakeHeat({Aged(1, 6, 7), Aged(20, 5, 1), Aged(9, 3, 2)},
               {{.slot = 1, .range = {6 * kPage, 4 * kPage}},
                {.slot = 0, .range = {0, 4 * kPage}}},
               100);
  ASSERT_EQ(heat.size(), 2u);
  EXPECT_EQ(heat[0].slot, 0);
  EXPECT_EQ(Ages(heat[0]), ". 7 7 7");
  EXPECT_EQ(heat[1].slot, 1);
  EXPECT_EQ(Ages(heat[1]), "7 . . 2");
}

TEST(CellsTest, CellsBeginAtTheirSlotAndTheLastMayBeShorter) {
  const std::vector<HeatSlot> heat =
      MakeHeat({Aged(7, 1, 9), Aged(5, 1, 4)},
               {{.slot = 0, .range = {3 * kPage, 5 * kPage}}}, 3);
  ASSERT_EQ(heat.size(), 1u);
  EXPECT_EQ(heat[0].cell_bytes, 2 * kPage);
  EXPECT_EQ(Ages(heat[0]), ". 4 9");
}

TEST(CellsTest, AllSlotsShareOneSizeOfCells) {
  const std::vector<HeatSlot> heat =
      MakeHeat({},
               {{.slot = 0, .range = {0, 64 * kPage}},
                {.slot = 1, .range = {64 * kPage, kPage}}},
               33);
  ASSERT_EQ(heat.size(), 2u);
  EXPECT_EQ(heat[0].cell_bytes, 2 * kPage);
  EXPECT_EQ(heat[0].cells.size(), 32u);
  EXPECT_EQ(heat[1].cell_bytes, 2 * kPage);
  EXPECT_EQ(heat[1].cells.size(), 1u);
}

TEST(CellsTest, EachSlotHasACellHoweverFewAreWanted) {
  for (const int64_t wanted : {-1, 0, 1, 2}) {
    const std::vector<HeatSlot> heat =
        MakeHeat({Aged(70, 1, 3)},
                 {{.slot = 0, .range = {0, 3 * kPage}},
                  {.slot = 1, .range = {64 * kPage, 8 * kPage}}},
                 wanted);
    ASSERT_EQ(heat.size(), 2u);
    EXPECT_EQ(Ages(heat[0]), ".");
    EXPECT_EQ(Ages(heat[1]), "3");
    EXPECT_EQ(heat[0].cell_bytes, 8 * kPage);
  }
}

TEST(CellsTest, NoCellIsSmallerThanAPage) {
  const std::vector<HeatSlot> heat =
      MakeHeat({}, {{.slot = 0, .range = {0, 3 * kPage}}}, 1000);
  ASSERT_EQ(heat.size(), 1u);
  EXPECT_EQ(heat[0].cells.size(), 3u);
}

TEST(CellsTest, WithoutMemoryThereAreNoCells) {
  EXPECT_THAT(MakeHeat({Aged(0, 1, 1)}, {}, 64), IsEmpty());
  EXPECT_THAT(MakeHeat({Aged(0, 1, 1)}, {{.slot = 0, .range = {0, 0}}}, 64),
              IsEmpty());
}

TEST(CellsTest, TheLargestSlotHasAsManyCellsAsAnyOther) {
  const int64_t size = int64_t{1} << 52;
  const std::vector<HeatSlot> heat =
      MakeHeat({{{size - kPage, kPage}, absl::Seconds(1)}},
               {{.slot = 0, .range = {0, size}}}, 2);
  ASSERT_EQ(heat.size(), 1u);
  EXPECT_EQ(heat[0].cell_bytes, size / 2);
  EXPECT_THAT(heat[0].cells,
              ElementsAre(HeatCell{}, HeatCell{.kind = HeatCell::Kind::kAged,
                                               .age = absl::Seconds(1)}));
}

}  // namespace
}  // namespace mmud::client
