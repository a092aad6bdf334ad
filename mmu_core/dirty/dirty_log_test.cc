#include "mmu_core/dirty/dirty_log.h"

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
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
using ::mmu::testing::kNothing;
using ::mmu::testing::kOtherId;
using ::mmu::testing::kSlotPages;
using ::mmu::testing::Pages;
using ::mmu::testing::ReasonOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

using DirtyLogTest = DirtyLogFixture;

TEST_F(DirtyLogTest, ANewLogSaysWhoOwnsItAndHasNothingSealed) {
  const DirtyLogState state = log_.State();
  EXPECT_EQ(state.id, kId);
  EXPECT_EQ(state.owner, "alice");
  EXPECT_EQ(state.lease, absl::Seconds(30));
  EXPECT_EQ(state.lease_end, At(130));
  EXPECT_EQ(state.start, At(100));
  EXPECT_EQ(state.open_epoch, 5u);
  EXPECT_EQ(state.sealed_epoch, 0u);
  EXPECT_THAT(state.epochs_in_flight, IsEmpty());
  EXPECT_EQ(state.undelivered_since, MonotonicTime::InfiniteFuture());
  EXPECT_THAT(state.slots,
              ElementsAre(SlotLogState{.slot = 0, .first_epoch = 5},
                          SlotLogState{.slot = 3, .first_epoch = 5}));
  EXPECT_EQ(log_.CountUndelivered(), kNothing);
}

TEST_F(DirtyLogTest, OneRoundOfASender) {
  Mark(0, {1, 70});
  Mark(3, {199});
  const SealOutcome seal = Seal();
  EXPECT_EQ(seal.epoch, 5u);
  EXPECT_THAT(seal.slots,
              ElementsAre(SlotSeal{.slot = 0, .fresh_page_count = 2},
                          SlotSeal{.slot = 3, .fresh_page_count = 1}));
  EXPECT_THAT(Read(0, 5), ElementsAre(1, 70));

  const auto flight = Clear(0, 5, {1, 2, 70});
  ASSERT_TRUE(flight.ok()) << flight.status();
  EXPECT_THAT(flight->moved, ElementsAre(BitmapWord{0, 2}, BitmapWord{1, 64}));
  EXPECT_EQ(flight->moved_page_count, 2u);
  EXPECT_EQ(flight->still_sealed_page_count, 0u);
  EXPECT_THAT(Read(0, 5), IsEmpty()) << "cleared";
  EXPECT_THAT(Read(0, 0), ElementsAre(1, 70)) << "and not delivered";
  EXPECT_EQ(log_.CountUndelivered(),
            (UndeliveredCounts{.sealed = 1, .in_flight = 2}));

  Mark(0, {70});
  EXPECT_EQ(log_.CountUndelivered(0),
            (UndeliveredCounts{.open = 1, .in_flight = 2}));
  const SealOutcome next = Seal(/*acknowledged=*/5);
  EXPECT_EQ(next.epoch, 6u);
  EXPECT_EQ(next.acknowledged_page_count, 2u);
  EXPECT_THAT(next.slots,
              ElementsAre(SlotSeal{.slot = 0, .fresh_page_count = 1},
                          SlotSeal{.slot = 3, .merged_page_count = 1}));
  EXPECT_THAT(Read(0, 0), ElementsAre(70)) << "1 was delivered";
  EXPECT_FALSE(log_.IsUndelivered(0, 1));
  EXPECT_TRUE(log_.IsUndelivered(0, 70));
}

TEST_F(DirtyLogTest, StateTellsWhatIsWhereAndSinceWhen) {
  Mark(0, {1, 70});
  now_ = At(110);
  Seal();
  now_ = At(111);
  ASSERT_TRUE(Clear(0, 5, {70}).ok());
  DirtyLogState state = log_.State();
  EXPECT_EQ(state.open_epoch, 6u);
  EXPECT_EQ(state.sealed_epoch, 5u);
  EXPECT_EQ(state.last_owner_call, At(111));
  EXPECT_EQ(state.lease_end, At(141));
  EXPECT_EQ(state.undelivered_since, At(110));
  EXPECT_THAT(state.epochs_in_flight, ElementsAre(5));
  EXPECT_EQ(state.slots[0], (SlotLogState{.slot = 0,
                                          .first_epoch = 5,
                                          .sealed_page_count = 1,
                                          .in_flight_page_count = 1}));
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  ASSERT_TRUE(Acknowledge(5).ok());
  state = log_.State();
  EXPECT_THAT(state.epochs_in_flight, IsEmpty());
  EXPECT_EQ(state.undelivered_since, MonotonicTime::InfiniteFuture());
  now_ = At(120);
  Seal();
  EXPECT_EQ(log_.State().undelivered_since, MonotonicTime::InfiniteFuture())
      << "nothing was dirty";
}

TEST_F(DirtyLogTest, PartsOfTheStateAreWhatItTells) {
  Mark(3, {1, 70});
  now_ = At(110);
  Seal();
  ASSERT_TRUE(Clear(3, 5, {70}).ok());
  Mark(0, {2});
  const DirtyLogState summary = log_.Summary();
  EXPECT_THAT(summary.slots, IsEmpty());
  EXPECT_EQ(summary.owner, "alice");
  EXPECT_EQ(summary.sealed_epoch, 5u);
  EXPECT_EQ(summary.lease_end, At(140));
  EXPECT_EQ(log_.last_owner_call(), At(110));
  const std::vector<SlotLogState> slots = log_.State().slots;
  EXPECT_EQ(log_.FindSlotState(0), slots[0]);
  EXPECT_EQ(log_.FindSlotState(3), slots[1]);
  EXPECT_EQ(log_.FindSlotState(3)->sealed_page_count, 1u);
  EXPECT_EQ(log_.FindSlotState(1), absl::nullopt);
  EXPECT_THAT(log_.CountUndeliveredBySlot(),
              ElementsAre(SlotUndelivered{0, {.open = 1}},
                          SlotUndelivered{3, {.sealed = 1, .in_flight = 1}}));
}

TEST_F(DirtyLogTest, OnlyTheLastSealedEpochCanBeCleared) {
  EXPECT_EQ(ReasonOf(Clear(0, 5, {1}).status()), Reason::kEpochMismatch);
  Mark(0, {1});
  Seal();
  Seal();
  for (const uint64_t epoch : {4, 5, 7}) {
    const absl::Status status = Clear(0, epoch, {1}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_EQ(ReasonOf(status), Reason::kEpochMismatch) << epoch;
  }
  EXPECT_EQ(Clear(0, 6, {1})->moved_page_count, 1u);
  EXPECT_EQ(ReasonOf(Clear(1, 6, {1}).status()), Reason::kDirtyLogOff);
}

TEST_F(DirtyLogTest, AReadTellsUnknownEpochsFromSupersededOnes) {
  EXPECT_EQ(ReasonOf(TryRead(0, 5)), Reason::kEpochUnknown);
  Seal();
  Seal();
  EXPECT_EQ(ReasonOf(TryRead(0, 4)), Reason::kEpochUnknown)
      << "an earlier log's";
  EXPECT_EQ(ReasonOf(TryRead(0, 5)), Reason::kEpochSuperseded);
  EXPECT_TRUE(TryRead(0, 6).ok());
  EXPECT_EQ(ReasonOf(TryRead(0, 7)), Reason::kEpochUnknown);
  EXPECT_EQ(ReasonOf(TryRead(1, 6)), Reason::kDirtyLogOff);
  uint64_t word = 42;
  EXPECT_EQ(ReasonOf(log_.Read(kOtherId, 0, 6, 0, absl::MakeSpan(&word, 1))),
            Reason::kLogChanged);
  EXPECT_EQ(ReasonOf(log_.Read(kId, 0, 6, 256, absl::MakeSpan(&word, 1))),
            Reason::kInvalidRange);
  EXPECT_EQ(ReasonOf(log_.Read(kId, 0, 6, 32, absl::MakeSpan(&word, 1))),
            Reason::kInvalidRange);
  EXPECT_EQ(word, 42u) << "nothing was written";
}

TEST_F(DirtyLogTest, WhatIsInFlightIsReadByItsEpoch) {
  Mark(0, {1, 2});
  Mark(3, {9});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1, 2}).ok());
  ASSERT_TRUE(Clear(3, 5, {9}).ok());
  Mark(0, {2});
  Seal();
  ASSERT_TRUE(Clear(0, 6, {2}).ok());
  EXPECT_THAT(ReadInFlight(0, 5), ElementsAre(1)) << "2 was cleared again";
  EXPECT_THAT(ReadInFlight(3, 5), ElementsAre(9));
  EXPECT_THAT(ReadInFlight(0, 6), ElementsAre(2));
  EXPECT_THAT(ReadInFlight(3, 6), IsEmpty());
  ASSERT_TRUE(Acknowledge(5).ok());
  EXPECT_THAT(ReadInFlight(0, 5), IsEmpty());
  EXPECT_THAT(ReadInFlight(3, 5), IsEmpty());
  EXPECT_THAT(ReadInFlight(0, 6), ElementsAre(2));
  uint64_t word = 42;
  const auto reason = [&](LogId id, uint32_t slot, uint64_t epoch,
                          uint64_t first_page) {
    return ReasonOf(log_.ReadInFlight(id, slot, epoch, first_page,
                                      absl::MakeSpan(&word, 1)));
  };
  EXPECT_EQ(reason(kOtherId, 0, 6, 0), Reason::kLogChanged);
  EXPECT_EQ(reason(kId, 1, 6, 0), Reason::kDirtyLogOff);
  EXPECT_EQ(reason(kId, 0, 4, 0), Reason::kEpochUnknown);
  EXPECT_EQ(reason(kId, 0, 7, 0), Reason::kEpochUnknown);
  EXPECT_EQ(reason(kId, 0, 6, 32), Reason::kInvalidRange);
  EXPECT_EQ(word, 42u) << "nothing was written";
}

// CheckEpoch also works on a log without slots.
TEST_F(DirtyLogTest, ALogKnowsItsEpochsWithoutASlot) {
  Seal();
  log_.Leave(0);
  log_.Leave(3);
  ASSERT_THAT(log_.AllSlots(), IsEmpty());
  const auto reason = [&](LogId id, uint64_t epoch, LogPages pages) {
    return ReasonOf(log_.CheckEpoch(id, epoch, pages));
  };
  for (const LogPages pages : {LogPages::kSealed, LogPages::kInFlight}) {
    EXPECT_EQ(reason(kId, 5, pages), Reason::kNone);
    EXPECT_EQ(reason(kOtherId, 5, pages), Reason::kLogChanged);
    EXPECT_EQ(reason(kId, 4, pages), Reason::kEpochUnknown)
        << "an earlier log's";
    EXPECT_EQ(reason(kId, 6, pages), Reason::kEpochUnknown) << "not sealed yet";
  }
  EXPECT_EQ(reason(kId, 0, LogPages::kSealed), Reason::kNone) << "a peek";
  EXPECT_EQ(reason(kId, 0, LogPages::kInFlight), Reason::kEpochUnknown);
  Seal();
  EXPECT_EQ(reason(kId, 5, LogPages::kSealed), Reason::kEpochSuperseded);
  EXPECT_EQ(reason(kId, 5, LogPages::kInFlight), Reason::kNone);
  log_.Close();
  EXPECT_EQ(reason(kId, 6, LogPages::kSealed), Reason::kDirtyLogOff);
}

// The log is off before the memory is protected, and after vCPUs have stopped
// to mark pages. In both states a page that the guest writes is in no set.
TEST_F(DirtyLogTest, OnlyALogThatIsOnIsSealedReadClearedAndAcknowledged) {
  Mark(0, {1, 2});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  const auto expect_off = [&](DirtyLog& log) {
    EXPECT_FALSE(log.is_on());
    const LogCall call = By(1);
    const std::vector<uint64_t> mask(1, 2);
    uint64_t word = 42;
    for (const absl::Status& status :
         {log.Admit(call), log.Seal(call, 0).status(),
          log.Read(absl::nullopt, 0, 0, 0, absl::MakeSpan(&word, 1)),
          log.ReadInFlight(absl::nullopt, 0, 5, 0, absl::MakeSpan(&word, 1)),
          log.TakeIntoFlight(call, 0, 5, 0, mask).status(),
          log.Acknowledge(call, 5).status(),
          log.AcknowledgePages(call, 5, 0, 0, mask).status(),
          log.Acquire(Claim(2, "bob"), absl::nullopt, Force::kYes, now_)
              .status()}) {
      EXPECT_EQ(ReasonOf(status), Reason::kDirtyLogOff) << status;
    }
    EXPECT_EQ(word, 42u);
  };
  EXPECT_TRUE(log_.is_on());
  log_.Close();
  expect_off(log_);
  EXPECT_EQ(log_.CountUndelivered(),
            (UndeliveredCounts{.sealed = 1, .in_flight = 1}))
      << "what is lost can be counted";
  DirtyLog beginning(kOtherId, 9, Claim(1, "alice"), NewSlots(), now_,
                     DirtyLog::Begin::kClosed);
  expect_off(beginning);
  now_ = At(150);
  beginning.Open(now_);
  EXPECT_EQ(beginning.last_owner_call(), At(150));
  EXPECT_EQ(beginning.State().lease_end, At(180)) << "it could not call before";
  EXPECT_TRUE(beginning.is_on());
  EXPECT_TRUE(beginning.Seal(By(1), 0).ok());
}

TEST_F(DirtyLogTest, AtMostFourEpochsAreInFlight) {
  for (uint64_t page = 0; page < kMaxEpochsInFlight; ++page) {
    Mark(0, {page});
    ASSERT_TRUE(Clear(0, Seal().epoch, {page}).ok());
  }
  Mark(0, {100});
  Mark(3, {100});
  const uint64_t epoch = Seal().epoch;
  const absl::Status status = Clear(3, epoch, {100}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), Reason::kLimitExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("acknowledge epoch 5"));
  EXPECT_THAT(Read(3, epoch), ElementsAre(100));
  ASSERT_TRUE(Acknowledge(5).ok());
  EXPECT_TRUE(Clear(3, epoch, {100}).ok());
  EXPECT_TRUE(Clear(0, epoch, {100}).ok()) << "the epoch has its place now";
}

TEST_F(DirtyLogTest, ASlotThatJoinsIsSealedWithTheOthers) {
  Seal();
  log_.Join(DirtyLog::JoiningSlot(NewSlot(1, InitiallySet::kYes)));
  EXPECT_EQ(log_.CountUndelivered(1), UndeliveredCounts{.open = kSlotPages});
  EXPECT_EQ(ReasonOf(Clear(1, 5, {0}).status()), Reason::kEpochMismatch)
      << "it was not there yet";
  EXPECT_EQ(ReasonOf(TryRead(1, 5)), Reason::kEpochSuperseded);
  EXPECT_THAT(Seal().slots,
              ElementsAre(SlotSeal{.slot = 0},
                          SlotSeal{.slot = 1, .fresh_page_count = kSlotPages},
                          SlotSeal{.slot = 3}));
  EXPECT_TRUE(Clear(1, 6, {0}).ok());
  const DirtyLogState state = log_.State();
  EXPECT_EQ(state.start, At(100));
  EXPECT_FALSE(state.slots[0].joined);
  EXPECT_TRUE(state.slots[1].joined);
  EXPECT_FALSE(state.slots[2].joined);
}

TEST_F(DirtyLogTest, ASlotThatLeavesTakesItsPagesAlongAndCountsThem) {
  Mark(0, {1});
  Mark(3, {1, 2, 3});
  Seal();
  ASSERT_TRUE(Clear(3, 5, {1}).ok());
  Mark(3, {7});
  EXPECT_EQ(log_.Leave(3),
            (UndeliveredCounts{.open = 1, .sealed = 2, .in_flight = 1}));
  EXPECT_EQ(log_.Leave(3), kNothing);
  EXPECT_EQ(log_.Find(3), nullptr);
  EXPECT_EQ(log_.CountUndelivered(), UndeliveredCounts{.sealed = 1});
  EXPECT_THAT(log_.State().epochs_in_flight, IsEmpty());
  EXPECT_EQ(ReasonOf(Clear(3, 5, {2}).status()), Reason::kDirtyLogOff);
  EXPECT_EQ(Acknowledge(5)->acknowledged_page_count, 0u);
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  EXPECT_EQ(Acknowledge(5)->still_in_flight_page_count, 0u);
  EXPECT_EQ(log_.State().undelivered_since, MonotonicTime::InfiniteFuture());
}

TEST_F(DirtyLogTest, ASlotThatMovedIsToBeSealedAgain) {
  Mark(0, {1, 2, 3});
  Mark(3, {8});
  Seal();
  ASSERT_TRUE(Clear(0, 5, {1}).ok());
  Mark(0, {4});
  log_.Moved(0);
  EXPECT_EQ(log_.CountUndelivered(0),
            (UndeliveredCounts{.open = 1, .sealed = 3}));
  EXPECT_EQ(ReasonOf(Clear(0, 5, {2}).status()), Reason::kEpochMismatch);
  EXPECT_EQ(ReasonOf(TryRead(0, 5)), Reason::kEpochSuperseded);
  EXPECT_EQ(Acknowledge(5)->acknowledged_page_count, 0u)
      << "what was copied came from another place";
  EXPECT_TRUE(Clear(3, 5, {8}).ok()) << "the other slot is where it was";
  Seal();
  EXPECT_THAT(Read(0, 6), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(Clear(0, 6, {1, 2, 3, 4})->moved_page_count, 4u);
  log_.Moved(9);  // not logged
}

TEST_F(DirtyLogTest, TheErrorOfAnEndCountsWhatWouldBeLost) {
  const absl::Status status =
      UndeliveredPages({.open = 1, .sealed = 2, .in_flight = 3}, "slot 3");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kUndeliveredPages);
  EXPECT_THAT(DetailOf(status).metadata,
              UnorderedElementsAre(Pair("open_page_count", "1"),
                                   Pair("sealed_page_count", "2"),
                                   Pair("in_flight_page_count", "3")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("slot 3"));
}

// State and Find do not wait for a seal, which may take long with much memory.
// A peek waits for it (RACE-7).
TEST_F(DirtyLogTest, LookingWaitsForNoSeal) {
  Mark(0, {1});
  Pages peeked;
  Interleaving threads;
  threads.Add("seal", [&] { Seal(); });
  threads.Add("peek", [&] { peeked = Read(0, 0); });
  threads.RunTo("seal", HookPoint::kJoinToLeave);
  EXPECT_EQ(log_.State().open_epoch, 5u);
  EXPECT_NE(log_.Find(0), nullptr);
  threads.Start("peek");
  threads.RunToEnd("seal");
  threads.WaitForEnd("peek");
  EXPECT_THAT(peeked, ElementsAre(1));
  EXPECT_EQ(log_.State().open_epoch, 6u);
}

// vCPUs mark pages, an owner seals, clears and acknowledges, and other owners
// take over. In the end each page is undelivered, or was copied after its last
// write.
TEST_F(DirtyLogTest, MarksBesideEveryMoveAreNeverLost) {
  std::vector<std::atomic<uint64_t>> written(kSlotPages);  // versions
  std::vector<uint64_t> delivered(kSlotPages);
  std::atomic<bool> stop = false;
  std::vector<std::thread> vcpus;
  for (uint64_t v = 0; v < 2; ++v) {
    vcpus.emplace_back([&, v] {
      for (uint64_t n = v; !stop.load(std::memory_order_relaxed); n += 2) {
        const uint64_t page = n * 37 % kSlotPages;
        // The vCPU writes first and marks second; no write protection orders
        // the two here. Either the copy is made after the write and contains
        // it, or the mark follows the copy and leaves the page open.
        written[page].fetch_add(1);
        open_.at(0)->Mark(page);
      }
    });
  }
  uint32_t key = 1;
  const auto one_round = [&](int round) {
    const uint64_t epoch = Seal(0, key).epoch;
    std::vector<uint64_t> mask(WordsFor(kSlotPages));
    ASSERT_TRUE(log_.Read(kId, 0, epoch, 0, absl::MakeSpan(mask)).ok());
    const auto flight = log_.TakeIntoFlight(By(key), 0, epoch, 0, mask);
    ASSERT_TRUE(flight.ok()) << flight.status();
    if (round % 5 == 4) {  // the owner dies and its copies are lost
      ++key;
      ASSERT_TRUE(Acquire(key, "next", Force::kYes).ok());
      return;
    }
    for (const BitmapWord& word : flight->moved) {
      for (const uint64_t bit : SetBitsOf(word.bits)) {
        const uint64_t page = 64 * word.index + bit;
        delivered[page] = written[page].load();
      }
    }
    ASSERT_TRUE(Acknowledge(epoch, key).ok());
  };
  for (int round = 0; round < 2000 && !HasFailure(); ++round) one_round(round);
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  for (uint64_t page = 0; page < kSlotPages; ++page) {
    EXPECT_TRUE(log_.IsUndelivered(0, page) ||
                delivered[page] == written[page].load())
        << page;
  }
}

}  // namespace
}  // namespace mmu
