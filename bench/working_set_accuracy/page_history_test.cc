#include "bench/working_set_accuracy/page_history.h"

#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

TEST(PageHistoryTest, CountsEachPageOfTheLastIntervalsOnce) {
  PageHistory history(5);
  history.Access(0);
  history.Access(1);
  history.EndInterval();
  history.Access(1);
  history.Access(1);
  history.Access(2);
  history.EndInterval();
  EXPECT_EQ(history.CountWithin(1), 2u);
  EXPECT_EQ(history.CountWithin(2), 3u);
  EXPECT_EQ(history.CountWithin(100), 3u);
  EXPECT_FALSE(history.AccessedWithin(0, 1));
  EXPECT_TRUE(history.AccessedWithin(0, 2));
  EXPECT_TRUE(history.AccessedWithin(1, 1));
  EXPECT_FALSE(history.AccessedWithin(4, 100));
}

TEST(PageHistoryTest, TheOpenIntervalDoesNotCount) {
  PageHistory history(1);
  history.Access(0);
  EXPECT_EQ(history.CountWithin(1), 0u);
  history.EndInterval();
  EXPECT_EQ(history.CountWithin(1), 1u);
}

TEST(PageHistoryTest, AnIntervalWithoutAccessesIsEmpty) {
  PageHistory history(3);
  history.Access(0);
  history.EndInterval();
  history.EndInterval();
  EXPECT_EQ(history.CountWithin(1), 0u);
  EXPECT_EQ(history.CountWithin(2), 1u);
}

}  // namespace
}  // namespace mmu::bench
