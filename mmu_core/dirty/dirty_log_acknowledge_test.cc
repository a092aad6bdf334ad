// Acknowledgements: which pages they deliver, and since when others wait.

#include <cstdint>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/testing/dirty_log_fixture_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::At;
using ::mmu::testing::DirtyLogFixture;
using ::mmu::testing::Force;
using ::mmu::testing::ReasonOf;
using ::testing::ElementsAre;

using DirtyLogAcknowledgeTest = DirtyLogFixture;

// The sender acknowledges each epoch with the seal of the next one.
TEST_F(DirtyLogAcknowledgeTest, CarriedAcknowledgementsAdvanceTheOldestSeal) {
  Mark(0, {1, 2});
  Seal();
  for (int64_t round = 1; round <= 6; ++round) {
    const uint64_t epoch = log_.State().sealed_epoch;
    ASSERT_TRUE(Clear(0, epoch, Read(0, epoch)).ok());
    Mark(0, {1, static_cast<uint64_t>(10 + round)});
    now_ = At(100 + 10 * round);
    EXPECT_EQ(Seal(epoch).acknowledged_page_count, 2u);
    EXPECT_EQ(log_.State().undelivered_since, now_);
  }
}

// The sender acknowledges each epoch while the next one is in flight. The guest
// writes the same pages all the time, so each clear moves them from the
// previous epoch to the new one.
TEST_F(DirtyLogAcknowledgeTest,
       AcknowledgementsInTheMiddleAdvanceTheOldestSeal) {
  for (int64_t round = 0; round <= 6; ++round) {
    Mark(0, {1, 2});
    now_ = At(100 + 10 * round);
    const uint64_t epoch = Seal().epoch;
    ASSERT_TRUE(Clear(0, epoch, {1, 2}).ok());
    if (round == 0) continue;
    EXPECT_EQ(log_.State().undelivered_since, At(90 + 10 * round))
        << "was never acknowledged, though cleared again";
    ASSERT_TRUE(Acknowledge(epoch - 1).ok());
    EXPECT_EQ(log_.State().undelivered_since, now_);
  }
  // Without acknowledgements the oldest seal stays the same, however many
  // epochs follow.
  for (int64_t round = 1; round <= 10; ++round) {
    Mark(0, {1, 2});
    now_ = At(160 + 10 * round);
    ASSERT_TRUE(Clear(0, Seal().epoch, {1, 2}).ok());
    EXPECT_EQ(log_.State().undelivered_since, At(160));
  }
  ASSERT_TRUE(Acknowledge(log_.State().sealed_epoch).ok());
  EXPECT_EQ(log_.State().undelivered_since, MonotonicTime::InfiniteFuture());
}

TEST_F(DirtyLogAcknowledgeTest, AcknowledgementsOfPagesAdvanceTheOldestSeal) {
  for (int64_t round = 0; round <= 6; ++round) {
    Mark(0, {1, static_cast<uint64_t>(10 + round)});
    now_ = At(100 + 10 * round);
    const uint64_t epoch = Seal().epoch;
    ASSERT_TRUE(Clear(0, epoch, Read(0, epoch)).ok());
    if (round == 0) continue;
    EXPECT_EQ(log_.State().undelivered_since, At(90 + 10 * round));
    ASSERT_TRUE(
        AcknowledgePages(epoch - 1, 0, ReadInFlight(0, epoch - 1)).ok());
    EXPECT_EQ(log_.State().undelivered_since, now_);
  }
}

// All pages of epoch 5 were cleared again in epoch 6, and were not delivered in
// between.
TEST_F(DirtyLogAcknowledgeTest, WhatWasClearedAgainWaitsSinceItsFirstSeal) {
  for (const int64_t second : {110, 120}) {
    Mark(0, {1, 2});
    now_ = At(second);
    ASSERT_TRUE(Clear(0, Seal().epoch, {1, 2}).ok());
  }
  EXPECT_EQ(log_.State().undelivered_since, At(110));
  ASSERT_TRUE(Acquire(2, "bob", Force::kYes).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110)) << "nor by a takeover";
}

TEST_F(DirtyLogAcknowledgeTest,
       WhatWasClearedAgainIsDeliveredWithItsLaterEpoch) {
  for (const int64_t second : {110, 120}) {
    Mark(0, {1, 2});
    now_ = At(second);
    ASSERT_TRUE(Clear(0, Seal().epoch, {1, 2}).ok());
  }
  Mark(3, {7});
  now_ = At(130);
  ASSERT_TRUE(Clear(3, Seal().epoch, {7}).ok());
  ASSERT_TRUE(AcknowledgePages(6, 0, {1}).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110)) << "of 2";
  ASSERT_TRUE(AcknowledgePages(6, 0, {2}).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(130));
}

TEST_F(DirtyLogAcknowledgeTest, WhatIsMergedOrReturnedKeepsTheTimeOfItsSeal) {
  Mark(0, {1, 2});
  Mark(3, {7});
  now_ = At(110);
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  Mark(0, {3});
  now_ = At(120);
  Seal();  // 2 and 7 are merged
  ASSERT_TRUE(Acknowledge(5).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110)) << "of 2";
  ASSERT_TRUE(Clear(0, 6, {2, 3}).ok());
  ASSERT_TRUE(Clear(3, 6, {7}).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110));
  Mark(0, {4});
  now_ = At(130);
  Seal();
  ASSERT_TRUE(Acquire(2, "bob", Force::kYes).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110)) << "sealed again";
  Mark(0, {5});
  now_ = At(140);
  Seal(0, /*by=*/2);
  EXPECT_EQ(log_.State().undelivered_since, At(110));
  ASSERT_TRUE(Clear(0, 8, {2, 3, 4, 5}, /*by=*/2).ok());
  ASSERT_TRUE(Clear(3, 8, {7}, /*by=*/2).ok());
  log_.Moved(3);
  ASSERT_TRUE(Acknowledge(8, /*by=*/2).ok());
  EXPECT_EQ(log_.State().undelivered_since, At(110)) << "of 7";
  EXPECT_EQ(log_.Leave(3), UndeliveredCounts{.sealed = 1});
  EXPECT_EQ(log_.State().undelivered_since, MonotonicTime::InfiniteFuture());
}

TEST_F(DirtyLogAcknowledgeTest, ClearAndAcknowledgeMayBeRepeated) {
  Mark(0, {1, 70});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1, 70}).ok());
  const auto again = Clear(0, 5, {1, 70});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->moved_page_count, 0u);
  EXPECT_EQ(again->already_in_flight_page_count, 2u);
  EXPECT_EQ(Acknowledge(5)->acknowledged_page_count, 2u);
  const auto twice = Acknowledge(5);
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(twice->acknowledged_page_count, 0u);
  EXPECT_EQ(twice->still_in_flight_page_count, 0u);
}

TEST_F(DirtyLogAcknowledgeTest,
       NamedPagesAreAcknowledgedAndTheOthersToldApart) {
  Mark(0, {1, 2, 3});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1, 2}).ok());
  Mark(0, {2});
  Seal();
  ASSERT_TRUE(Clear(0, 6, {2}).ok());
  // Page 1 is in flight since epoch 5, page 2 again since epoch 6. Page 3 is
  // sealed, page 4 is clean.
  const auto result = AcknowledgePages(5, 0, {1, 2, 3, 4});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->acknowledged_page_count, 1u);
  EXPECT_EQ(result->later_page_count, 1u);
  EXPECT_EQ(result->not_in_flight_page_count, 2u);
  EXPECT_EQ(result->still_in_flight_page_count, 1u);
  EXPECT_THAT(Read(0, 0), ElementsAre(2, 3));
  EXPECT_EQ(AcknowledgePages(6, 0, {2})->acknowledged_page_count, 1u);
  EXPECT_EQ(ReasonOf(AcknowledgePages(5, 1, {1}).status()),
            Reason::kDirtyLogOff);
}

TEST_F(DirtyLogAcknowledgeTest,
       AcknowledgingAnEpochLeavesWhatWasClearedAgainLater) {
  Mark(0, {1, 2});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1, 2}).ok());
  Mark(0, {2});
  Seal();
  ASSERT_TRUE(Clear(0, 6, {2}).ok());
  EXPECT_THAT(log_.State().epochs_in_flight, ElementsAre(5, 6));
  const auto result = Acknowledge(5);
  EXPECT_EQ(result->acknowledged_page_count, 1u);
  EXPECT_EQ(result->still_in_flight_page_count, 1u);
  EXPECT_THAT(Read(0, 0), ElementsAre(2));
  EXPECT_EQ(Acknowledge(6)->acknowledged_page_count, 1u);
}

TEST_F(DirtyLogAcknowledgeTest, AnEpochIsAcknowledgedWithAllBeforeIt) {
  for (const uint64_t page : {1, 2, 3}) {
    Mark(0, {page});
    ASSERT_TRUE(Clear(0, Seal().epoch, {page}).ok());
  }
  EXPECT_EQ(Acknowledge(6)->acknowledged_page_count, 2u);
  EXPECT_THAT(log_.State().epochs_in_flight, ElementsAre(7));
}

TEST_F(DirtyLogAcknowledgeTest, OnlySealedEpochsOfThisLogCanBeAcknowledged) {
  Mark(0, {1});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  EXPECT_EQ(Acknowledge(6).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(Acknowledge(6).status()), Reason::kEpochUnknown);
  EXPECT_EQ(ReasonOf(Acknowledge(4).status()), Reason::kEpochUnknown)
      << "of an earlier log";
  EXPECT_EQ(ReasonOf(AcknowledgePages(4, 0, {1}).status()),
            Reason::kEpochUnknown);
  const absl::Status status = log_.Seal(By(1), 9).status();
  EXPECT_EQ(ReasonOf(status), Reason::kEpochUnknown);
  EXPECT_EQ(DetailOf(status).field, "acknowledged_epoch");
  EXPECT_EQ(log_.open_epoch(), 6u) << "nothing was sealed";
  EXPECT_THAT(Read(0, 0), ElementsAre(1));
}

}  // namespace
}  // namespace mmu
