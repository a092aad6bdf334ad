#include "client/sent_pages.h"

#include <vector>

#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

GpaRange Pages(int64_t first, int64_t count) {
  return {first * kPageBytes, count * kPageBytes};
}

TEST(SentPagesTest, NothingIsSentAtFirst) {
  const SentPages sent({Pages(0, 10)});
  EXPECT_EQ(sent.sent_count(), 0);
  EXPECT_EQ(sent.resent_count(), 0);
}

TEST(SentPagesTest, PagesSentOnceAreNotSentAgain) {
  SentPages sent({Pages(0, 10), Pages(100, 10)});
  sent.Add({Pages(0, 5), Pages(100, 10)});
  sent.Add({Pages(5, 5)});
  EXPECT_EQ(sent.sent_count(), 20);
  EXPECT_EQ(sent.resent_count(), 0);
}

TEST(SentPagesTest, EachFurtherTimeCounts) {
  SentPages sent({Pages(0, 10)});
  sent.Add({Pages(0, 10)});
  sent.Add({Pages(2, 3)});
  sent.Add({Pages(4, 1), Pages(9, 1)});
  EXPECT_EQ(sent.sent_count(), 15);
  EXPECT_EQ(sent.resent_count(), 5);
}

TEST(SentPagesTest, RangeOverPartsThatTouchCounts) {
  SentPages sent({Pages(0, 10), Pages(10, 10)});
  sent.Add({Pages(8, 4)});
  sent.Add({Pages(9, 2)});
  EXPECT_EQ(sent.sent_count(), 6);
  EXPECT_EQ(sent.resent_count(), 2);
}

}  // namespace
}  // namespace mmud::client
