#include "client/mmu_client/page_bitmap.h"

#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr int64_t kStart = 0x40000000;

GpaRange Pages(int64_t first, int64_t count) {
  return {kStart + first * kPageBytes, count * kPageBytes};
}

TEST(PageBitmapTest, RangesJoinNeighboursAcrossWords) {
  PageBitmap bitmap(Pages(0, 200));
  ASSERT_TRUE(bitmap.Add(Pages(3, 1)).ok());
  ASSERT_TRUE(bitmap.Add(Pages(60, 80)).ok());
  ASSERT_TRUE(bitmap.Add(Pages(199, 1)).ok());
  EXPECT_EQ(bitmap.Ranges(),
            (std::vector<GpaRange>{Pages(3, 1), Pages(60, 80), Pages(199, 1)}));
  EXPECT_EQ(bitmap.page_count(), 82);
}

TEST(PageBitmapTest, AddingTwiceCountsOnce) {
  PageBitmap bitmap(Pages(0, 64));
  ASSERT_TRUE(bitmap.Add(Pages(1, 2)).ok());
  ASSERT_TRUE(bitmap.Add(Pages(2, 2)).ok());
  EXPECT_EQ(bitmap.page_count(), 3);
}

TEST(PageBitmapTest, RefusesWhatIsOutsideOrUnaligned) {
  PageBitmap bitmap(Pages(0, 64));
  for (const GpaRange& bad :
       {Pages(-1, 1), Pages(64, 1), Pages(0, 65), GpaRange{kStart + 8, 4096},
        GpaRange{kStart, 100}, Pages(3, -1), GpaRange{kStart, INT64_MAX}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(bitmap.Add(bad)))
        << bad.gpa_bytes << " " << bad.size_bytes;
  }
  EXPECT_TRUE(bitmap.empty());
}

TEST(PageBitmapTest, CoversNoMoreThanTheLargestMemslot) {
  const int64_t most = kMaxBitmapBytes;
  const int64_t top = std::numeric_limits<int64_t>::max() - kPageBytes + 1;
  for (const GpaRange& range :
       {GpaRange{0, most + kPageBytes}, GpaRange{0, top},
        GpaRange{top, 2 * kPageBytes}}) {
    EXPECT_EQ(PageBitmap(range).range(), GpaRange()) << range.size_bytes;
  }
  const GpaRange last = {top - kPageBytes, kPageBytes};
  EXPECT_EQ(PageBitmap(last).range(), last);
}

TEST(PageBitmapTest, RefusesABitmapOfAnotherLengthOrWithPaddingSet) {
  PageBitmap bitmap(Pages(0, 64));
  EXPECT_FALSE(bitmap.AddBitmap(Pages(0, 10), "\x01").ok());
  EXPECT_FALSE(bitmap.AddBitmap(Pages(0, 10), "\x01\x04").ok());
  EXPECT_TRUE(bitmap.AddBitmap(Pages(0, 10), "\x01\x02").ok());
  EXPECT_EQ(bitmap.Ranges(), (std::vector<GpaRange>{Pages(0, 1), Pages(9, 1)}));
}

TEST(PageBitmapTest, MergesOnlyWhatCoversTheSameRange) {
  PageBitmap a(Pages(0, 64)), b(Pages(0, 64)), other(Pages(0, 128));
  ASSERT_TRUE(a.Add(Pages(1, 1)).ok());
  ASSERT_TRUE(b.Add(Pages(1, 2)).ok());
  EXPECT_TRUE(a.Merge(b).ok());
  EXPECT_EQ(a.page_count(), 2);
  EXPECT_TRUE(absl::IsInvalidArgument(a.Merge(other)));
}

TEST(PageBitmapTest, AgreesWithASetOfPages) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    const int64_t pages = 1 + random() % 300;
    PageBitmap bitmap(Pages(0, pages));
    std::set<int64_t> model;
    for (int i = 0; i < 20; ++i) {
      const int64_t first = random() % pages;
      const int64_t count = 1 + random() % (pages - first);
      if (count > 10) continue;
      ASSERT_TRUE(bitmap.Add(Pages(first, count)).ok());
      for (int64_t p = first; p < first + count; ++p) model.insert(p);
    }
    ASSERT_EQ(bitmap.page_count(), static_cast<int64_t>(model.size()));
    PageBitmap copy(Pages(0, pages));
    for (int64_t first = 0; first < pages; first += 64) {
      const GpaRange part = Pages(first, std::min<int64_t>(64, pages - first));
      ASSERT_TRUE(copy.AddBitmap(part, bitmap.Bitmap(part)).ok());
      EXPECT_EQ(bitmap.CountIn(part),
                std::distance(model.lower_bound(first),
                              model.lower_bound(first + 64)));
    }
    for (int64_t p = 0; p < pages; ++p) {
      ASSERT_EQ(copy.Contains(Pages(p, 1).gpa_bytes), model.contains(p));
    }
    EXPECT_EQ(copy.Ranges(), bitmap.Ranges());
  }
}

TEST(PageBitmapTest, SubtractRemovesThePagesOfTheOther) {
  const GpaRange range = {0, 200 * kPageBytes};
  PageBitmap pages(range);
  PageBitmap other(range);
  ASSERT_TRUE(pages.Add({0, 100 * kPageBytes}).ok());
  ASSERT_TRUE(other.Add({60 * kPageBytes, 80 * kPageBytes}).ok());
  ASSERT_TRUE(pages.Subtract(other).ok());
  EXPECT_EQ(pages.Ranges(), (std::vector<GpaRange>{{0, 60 * kPageBytes}}));
  EXPECT_EQ(pages.page_count(), 60);
  EXPECT_FALSE(pages.Subtract(PageBitmap({0, 64 * kPageBytes})).ok());
}

}  // namespace
}  // namespace mmud::client
