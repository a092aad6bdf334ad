// The owner of a dirty log: its lease, takeovers, and calls of others.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/testing/dirty_log_fixture_test_util.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::At;
using ::mmu::testing::Claim;
using ::mmu::testing::DirtyLogFixture;
using ::mmu::testing::Force;
using ::mmu::testing::Interleaving;
using ::mmu::testing::kId;
using ::mmu::testing::kOtherId;
using ::mmu::testing::ReasonOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

using DirtyLogOwnerTest = DirtyLogFixture;

TEST_F(DirtyLogOwnerTest, AnAcquisitionTellsTheStateAfterIt) {
  Mark(0, {1});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  DirtyLogState state;
  ASSERT_TRUE(log_.Acquire(Claim(2, std::string(200, 'b')), kId, Force::kYes,
                           At(105), &state)
                  .ok());
  EXPECT_EQ(state.owner, std::string(200, 'b'));
  EXPECT_EQ(state.owner_since, At(105));
  EXPECT_THAT(state.epochs_in_flight, IsEmpty());
  EXPECT_EQ(state.slots, log_.State().slots);
  EXPECT_EQ(state.slots[0].sealed_page_count, 1u);
  EXPECT_EQ(log_.State().owner, std::string(200, 'b'));
}

TEST_F(DirtyLogOwnerTest, AReadRenewsNoLease) {
  now_ = At(120);
  Read(0, 0);
  EXPECT_EQ(log_.State().lease_end, At(130));
  ASSERT_TRUE(log_.Admit(By(1)).ok());
  EXPECT_EQ(log_.State().lease_end, At(150));
}

TEST_F(DirtyLogOwnerTest, StrangersAndOtherLogsAreRefusedEverywhere) {
  Mark(0, {1});
  Seal();
  const auto reasons = [&](const LogCall& call) {
    return std::vector<Reason>{
        ReasonOf(log_.Admit(call)), ReasonOf(log_.Seal(call, 0).status()),
        ReasonOf(log_.TakeIntoFlight(call, 0, 5, 0, Mask({1})).status()),
        ReasonOf(log_.Acknowledge(call, 5).status()),
        ReasonOf(log_.AcknowledgePages(call, 5, 0, 0, Mask({1})).status())};
  };
  EXPECT_THAT(reasons(By(2)), ::testing::Each(Reason::kLogOwned));
  LogCall other = By(1);
  other.log_id = kOtherId;
  EXPECT_THAT(reasons(other), ::testing::Each(Reason::kLogChanged));
  ASSERT_TRUE(Acquire(2, "bob", Force::kYes).ok());
  EXPECT_THAT(reasons(By(1)), ::testing::Each(Reason::kLogFenced));
  EXPECT_EQ(log_.open_epoch(), 6u);
  EXPECT_THAT(Read(0, 5), ElementsAre(1));
}

TEST_F(DirtyLogOwnerTest, ATakeoverSealsAgainWhatWasInFlight) {
  Mark(0, {1, 2, 3});
  Mark(3, {4});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1, 2}).ok());
  ASSERT_TRUE(Clear(3, 5, {4}).ok());
  Mark(0, {9});
  EXPECT_EQ(ReasonOf(Acquire(2, "bob", Force::kNo)), Reason::kLogOwned);
  now_ = At(131);
  ASSERT_TRUE(Acquire(2, "bob", Force::kNo).ok());
  EXPECT_THAT(Read(0, 5), ElementsAre(1, 2, 3));
  EXPECT_THAT(Read(3, 5), ElementsAre(4));
  EXPECT_THAT(Read(0, 0), ElementsAre(1, 2, 3, 9));
  EXPECT_EQ(log_.CountUndelivered(),
            (UndeliveredCounts{.open = 1, .sealed = 4}));
  EXPECT_EQ(ReasonOf(Acknowledge(5, /*by=*/1).status()), Reason::kLogFenced);
  EXPECT_EQ(Acknowledge(5, /*by=*/2)->acknowledged_page_count, 0u);
  EXPECT_EQ(Clear(0, 5, {1, 2, 3}, /*by=*/2)->moved_page_count, 3u);
  EXPECT_EQ(log_.State().owner, "bob");
  EXPECT_EQ(log_.State().owner_since, At(131));
}

TEST_F(DirtyLogOwnerTest, AcquiringAgainWithTheSameKeyTakesNothingOver) {
  Mark(0, {1});
  Seal();
  ASSERT_TRUE(Acquire(2, "bob", Force::kYes).ok());
  ASSERT_TRUE(Clear(0, 5, {1}, /*by=*/2).ok());
  ASSERT_TRUE(Acquire(2, "bob", Force::kNo).ok());
  EXPECT_EQ(log_.CountUndelivered(), UndeliveredCounts{.in_flight = 1});
  EXPECT_EQ(
      ReasonOf(
          log_.Acquire(Claim(3, "eve"), kOtherId, Force::kYes, now_).status()),
      Reason::kLogChanged);
}

// The lease runs out between a clear and its acknowledgement. No other client
// has taken the log over.
TEST_F(DirtyLogOwnerTest, AnOwnerThatIsLateGoesOnIfNobodyTookOver) {
  Mark(0, {1});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  now_ = At(1000);
  EXPECT_EQ(Acknowledge(5)->acknowledged_page_count, 1u);
  EXPECT_EQ(log_.State().lease_end, At(1030));
}

// A takeover during a seal waits for the seal. The former owner gets its
// answer, and the new owner gets the sealed pages.
TEST_F(DirtyLogOwnerTest, ATakeoverBesideASealLosesNothing) {
  Mark(0, {1});
  Interleaving threads;
  absl::Status sealed;
  threads.Add("seal", [&] { sealed = log_.Seal(By(1), 0).status(); });
  threads.Add("bob", [&] { EXPECT_TRUE(Acquire(2, "bob", Force::kYes).ok()); });
  threads.RunTo("seal", HookPoint::kJoinToLeave);
  threads.Start("bob");
  threads.RunToEnd("seal");
  threads.WaitForEnd("bob");
  EXPECT_TRUE(sealed.ok()) << sealed;
  EXPECT_THAT(Read(0, 5), ElementsAre(1));
  EXPECT_EQ(ReasonOf(log_.Seal(By(1), 0).status()), Reason::kLogFenced);
}

}  // namespace
}  // namespace mmu
