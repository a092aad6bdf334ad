#include "mmu_core/dirty/log_owner.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;
using Acquired = LogOwner::Acquired;
using Force = LogOwner::Force;

MonotonicTime At(int64_t seconds) {
  return MonotonicTime::FromNanos(seconds * 1'000'000'000);
}

OwnerKey Key(uint8_t n) { return {.bytes = {n, 1, 2, 3}}; }

LogClaim Claim(uint8_t n, std::string owner) {
  return {.key = Key(n), .owner = std::move(owner)};
}

Reason ReasonOf(const absl::Status& status) { return DetailOf(status).reason; }

TEST(LogOwnerTest, EachCallOfTheOwnerRenewsItsLease) {
  LogOwner owner(Claim(1, "alice"), At(100));
  EXPECT_EQ(owner.name(), "alice");
  EXPECT_EQ(owner.lease_end(), At(130));
  EXPECT_TRUE(owner.Admit(Key(1), At(120)).ok());
  EXPECT_EQ(owner.last_call(), At(120));
  EXPECT_EQ(owner.lease_end(), At(150));
  EXPECT_TRUE(owner.Admit(Key(1), At(110)).ok()) << "a thread that came late";
  EXPECT_EQ(owner.lease_end(), At(150));
  EXPECT_EQ(owner.since(), At(100));
}

TEST(LogOwnerTest, AStrangerIsToldWhoOwnsTheLogAndForHowLong) {
  LogOwner owner(Claim(1, "alice"), At(100));
  const absl::Status status = owner.Admit(Key(2), At(107));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kLogOwned);
  EXPECT_EQ(DetailOf(status).field, "key");
  EXPECT_THAT(DetailOf(status).metadata,
              UnorderedElementsAre(Pair("owner", "alice"),
                                   Pair("owned_for_seconds", "7.0"),
                                   Pair("lease_remaining_seconds", "23.0")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("alice"));
  EXPECT_EQ(owner.lease_end(), At(130)) << "nobody else renews the lease";
}

TEST(LogOwnerTest, TheOwnerStaysTheOwnerAfterItsLeaseUntilSomebodyAcquires) {
  LogOwner owner(Claim(1, "alice"), At(100));
  const absl::Status status = owner.Admit(Key(2), At(500));
  EXPECT_EQ(ReasonOf(status), Reason::kLogOwned);
  EXPECT_EQ(DetailOf(status).metadata.at("lease_remaining_seconds"), "0.0");
  EXPECT_TRUE(owner.Admit(Key(1), At(501)).ok());
  EXPECT_EQ(owner.lease_end(), At(531));
}

TEST(LogOwnerTest, ALeaseThatLastsKeepsOthersFromAcquiring) {
  LogOwner owner(Claim(1, "alice"), At(100));
  EXPECT_EQ(
      ReasonOf(owner.Acquire(Claim(2, "bob"), Force::kNo, At(129)).status()),
      Reason::kLogOwned);
  EXPECT_TRUE(owner.Is(Key(1)));
  const auto acquired = owner.Acquire(Claim(2, "bob"), Force::kNo, At(130));
  ASSERT_TRUE(acquired.ok()) << acquired.status();
  EXPECT_EQ(*acquired, Acquired::kNewly);
  EXPECT_TRUE(owner.Is(Key(2)));
  EXPECT_EQ(owner.name(), "bob");
  EXPECT_EQ(owner.since(), At(130));
  EXPECT_EQ(owner.lease_end(), At(160));
}

TEST(LogOwnerTest, ForceTakesTheLogFromWhoeverHasIt) {
  LogOwner owner(Claim(1, "alice"), At(100));
  ASSERT_TRUE(owner.Acquire(Claim(2, "bob"), Force::kYes, At(101)).ok());
  EXPECT_TRUE(owner.Admit(Key(2), At(102)).ok());
}

TEST(LogOwnerTest, AFormerOwnerIsFencedForGood) {
  LogOwner owner(Claim(1, "alice"), At(100));
  ASSERT_TRUE(owner.Acquire(Claim(2, "bob"), Force::kYes, At(101)).ok());
  ASSERT_TRUE(owner.Acquire(Claim(3, "carol"), Force::kYes, At(102)).ok());
  for (const uint8_t former : {1, 2}) {
    const absl::Status status = owner.Admit(Key(former), At(110));
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(status), Reason::kLogFenced);
    EXPECT_EQ(DetailOf(status).metadata.at("owner"), "carol");
    EXPECT_EQ(DetailOf(status).metadata.at("owned_for_seconds"), "8.0");
    // The calls that the former owner still has under way carry its old key.
    // Acquiring the log with that key would admit them.
    EXPECT_EQ(
        ReasonOf(owner.Acquire(Claim(former, "again"), Force::kYes, At(500))
                     .status()),
        Reason::kLogFenced);
  }
  EXPECT_EQ(ReasonOf(owner.Admit(Key(4), At(110))), Reason::kLogOwned);
  EXPECT_TRUE(owner.Acquire(Claim(5, "alice"), Force::kYes, At(111)).ok())
      << "who comes back has made up a new one";
}

TEST(LogOwnerTest, AcquiringTwiceWithOneKeyIsOneTakeover) {
  LogOwner owner(Claim(1, "alice"), At(100));
  LogClaim claim = Claim(2, "bob");
  ASSERT_TRUE(owner.Acquire(claim, Force::kYes, At(101)).ok());
  claim.lease = absl::Seconds(60);
  const auto again = owner.Acquire(claim, Force::kNo, At(105));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, Acquired::kAlready);
  EXPECT_EQ(owner.since(), At(101));
  EXPECT_EQ(owner.lease_end(), At(165));
}

TEST(LogOwnerTest, TheOldestFormerKeysAreForgottenAndStillRefused) {
  LogOwner owner(Claim(0, "first"), At(0));
  OwnerKey key;
  for (size_t n = 1; n <= LogOwner::kMaxFormerKeys + 1; ++n) {
    key = {
        .bytes = {0xff, static_cast<uint8_t>(n), static_cast<uint8_t>(n >> 8)}};
    ASSERT_TRUE(
        owner.Acquire({.key = key, .owner = "next"}, Force::kYes, At(1)).ok());
  }
  EXPECT_EQ(ReasonOf(owner.Admit(Key(0), At(2))), Reason::kLogOwned);
  EXPECT_EQ(ReasonOf(owner.Admit({.bytes = {0xff, 1}}, At(2))),
            Reason::kLogFenced);
  EXPECT_TRUE(owner.Admit(key, At(2)).ok());
}

}  // namespace
}  // namespace mmu
