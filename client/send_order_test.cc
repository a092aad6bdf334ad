#include "client/send_order.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

GpaRange Pages(int64_t first, int64_t count) {
  return {first * kPageBytes, count * kPageBytes};
}

SlotBitmaps AllOf(int64_t count) {
  PageBitmap bitmap(Pages(0, count));
  EXPECT_TRUE(bitmap.Add(Pages(0, count)).ok());
  return {{3, bitmap}};
}

// The pages in the order of the pieces, as (slot, page).
std::vector<std::pair<int32_t, int64_t>> Flat(
    const std::vector<HarvestPiece>& pieces) {
  std::vector<std::pair<int32_t, int64_t>> flat;
  for (const HarvestPiece& piece : pieces) {
    for (const auto& [slot, ranges] : piece) {
      for (const GpaRange& range : ranges) {
        for (int64_t i = 0; i < range.size_bytes / kPageBytes; ++i) {
          flat.emplace_back(slot, range.gpa_bytes / kPageBytes + i);
        }
      }
    }
  }
  return flat;
}

TEST(SendOrderTest, HotMemoryIsInTheLastPieces) {
  const std::vector<HarvestPiece> pieces =
      ColdestFirst(AllOf(8), {{Pages(0, 2), 7}, {Pages(5, 1), 4}},
                   {.share = 8, .min_pages = 1});
  std::vector<int64_t> order;
  for (const auto& [slot, page] : Flat(pieces)) order.push_back(page);
  EXPECT_EQ(order, (std::vector<int64_t>{2, 3, 4, 6, 7, 5, 0, 1}));
}

TEST(SendOrderTest, MemoryOfUnknownHeatAscends) {
  const std::vector<HarvestPiece> pieces =
      ColdestFirst(AllOf(300), {}, {.share = 2, .min_pages = 100});
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].at(3), (std::vector<GpaRange>{Pages(0, 150)}));
  EXPECT_EQ(pieces[1].at(3), (std::vector<GpaRange>{Pages(150, 100)}));
  EXPECT_EQ(pieces[2].at(3), (std::vector<GpaRange>{Pages(250, 50)}));
}

TEST(SendOrderTest, LaterEntryOfTheListCounts) {
  // A list that is read while generations are made has memory twice: first
  // with its old generation.
  const std::vector<HarvestPiece> pieces =
      ColdestFirst(AllOf(4), {{Pages(0, 4), 1}, {Pages(1, 2), 2}},
                   {.share = 1, .min_pages = 2});
  ASSERT_EQ(pieces.size(), 1u);
  std::vector<int64_t> order;
  for (const auto& [slot, page] : Flat(pieces)) order.push_back(page);
  EXPECT_EQ(order, (std::vector<int64_t>{0, 3, 1, 2}));
}

TEST(SendOrderTest, NoPagesMakeNoPieces) {
  EXPECT_TRUE(ColdestFirst({}, {{Pages(0, 4), 1}}, {}).empty());
  EXPECT_TRUE(ColdestFirst({{3, PageBitmap(Pages(0, 64))}}, {}, {}).empty());
}

TEST(SendOrderTest, PiecesOfMuchMemoryAreFewAndEndSmall) {
  constexpr int64_t kPages = 1 << 20;
  const std::vector<HarvestPiece> pieces =
      ColdestFirst(AllOf(kPages), {}, PieceSizes());
  EXPECT_LT(pieces.size(), 150u);
  EXPECT_LE(TotalBytes(pieces.back().at(3)) / kPageBytes,
            PieceSizes().min_pages);
}

// Pages, heat and sizes of all kinds.
TEST(SendOrderTest, EachPageIsInOnePieceAndNoneIsHotterThanALaterOne) {
  std::mt19937 random(1);
  const auto below = [&random](int64_t limit) {
    return std::uniform_int_distribution<int64_t>(0, limit - 1)(random);
  };
  for (int round = 0; round < 300; ++round) {
    SlotBitmaps pages;
    std::vector<std::pair<int32_t, int64_t>> expected;
    const int64_t slots = 1 + below(3);
    for (int64_t slot = 0; slot < slots; ++slot) {
      const int64_t first = slot * 2000;
      const int64_t count = 1 + below(1000);
      PageBitmap bitmap(Pages(first, count));
      const int64_t runs = below(40);
      for (int64_t i = 0; i < runs; ++i) {
        const int64_t page = below(count);
        ASSERT_TRUE(bitmap
                        .Add(Pages(first + page, 1 + below(std::min<int64_t>(
                                                         count - page, 50))))
                        .ok());
      }
      for (int64_t i = 0; i < count; ++i) {
        if (bitmap.Contains((first + i) * kPageBytes)) {
          expected.emplace_back(slot, first + i);
        }
      }
      // Slots do not ascend by address.
      pages.emplace(slot, std::move(bitmap));
    }
    std::vector<MemoryHeat> heat;
    std::map<int64_t, int64_t> generations;  // of pages
    const int64_t entries = below(60);
    for (int64_t i = 0; i < entries; ++i) {
      const int64_t first = below(6000);
      const int64_t count = 1 + below(300);
      const int64_t generation = below(10);
      heat.push_back({Pages(first, count), generation});
      for (int64_t page = first; page < first + count; ++page) {
        generations[page] = generation;
      }
    }
    const std::vector<HarvestPiece> pieces = ColdestFirst(
        pages, heat, {.share = 1 + below(20), .min_pages = 1 + below(300)});

    std::vector<std::pair<int32_t, int64_t>> sent = Flat(pieces);
    std::sort(sent.begin(), sent.end());
    EXPECT_EQ(sent, expected);
    int64_t hottest = 0;
    for (const HarvestPiece& piece : pieces) {
      EXPECT_FALSE(piece.empty());
      int64_t hottest_here = 0;
      for (const auto& [slot, page] : Flat({piece})) {
        EXPECT_GE(generations[page], hottest);
        hottest_here = std::max(hottest_here, generations[page]);
      }
      hottest = hottest_here;
    }
  }
}

}  // namespace
}  // namespace mmud::client
