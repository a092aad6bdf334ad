// Owners of a VM's log begin, die and take over. The contents of memory decide
// whether a write was lost: the last owner must leave at the destination all
// that the guest wrote.

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::ReadLog;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Slot;
using ::mmu::testing::Write;
using ::testing::ElementsAre;

constexpr uint64_t kPages = 256;

// A client that migrates slot 0, and the destination's copy.
class Client {
 public:
  Client(Vm& vm, uint8_t key, std::vector<uint64_t>& destination)
      : vm_(vm), key_(key), destination_(destination) {}

  LogClaim Claim() const {
    return {.key = {.bytes = {key_}}, .owner = "client"};
  }
  LogCall Call() const {
    return {.key = Claim().key, .now = MonotonicTime::Now()};
  }
  absl::Status Start() {
    DirtyLogStart start;
    start.id = {.high = 1, .low = key_};
    start.claim = Claim();
    start.now = MonotonicTime::Now();
    return vm_.StartDirtyLog(start, nullptr).status();
  }
  absl::Status Acquire(LogOwner::Force force) {
    return vm_
        .AcquireDirtyLog(Claim(), absl::nullopt, force, MonotonicTime::Now())
        .status();
  }
  // Seals, clears all sealed pages, and returns them.
  std::vector<uint64_t> Clear() {
    const auto seal = vm_.SealDirtyLog(Call(), 0, nullptr);
    EXPECT_TRUE(seal.ok()) << seal.status();
    epoch_ = seal->epoch;
    std::vector<uint64_t> mask(kPages / 64);
    EXPECT_TRUE(ReadLog(vm_, 0, epoch_, 0, absl::MakeSpan(mask)).ok());
    const auto cleared =
        vm_.ClearDirtyLog(Call(), 0, epoch_, 0, kPages, mask, nullptr);
    EXPECT_TRUE(cleared.ok()) << cleared.status();
    return PagesOf(mask);
  }
  void Copy(const std::vector<uint64_t>& pages) {
    for (const uint64_t page : pages) {
      destination_[page] = ReadValue(vm_, page * kPageSize);
    }
  }
  absl::Status Acknowledge() {
    return vm_.AcknowledgePages(Call(), epoch_).status();
  }
  // Does a whole round. Returns the number of moved pages.
  size_t Round() {
    const std::vector<uint64_t> pages = Clear();
    Copy(pages);
    EXPECT_TRUE(Acknowledge().ok());
    return pages.size();
  }
  uint64_t epoch() const { return epoch_; }

 private:
  Vm& vm_;
  const uint8_t key_;
  std::vector<uint64_t>& destination_;
  uint64_t epoch_ = 0;
};

enum class Kind { kBitmap, kRing, kPml };

class OwnedDirtyLogTest : public ::testing::TestWithParam<Kind> {
 protected:
  static std::unique_ptr<Vm> Make(Kind kind) {
    const std::vector<MemslotConfig> slots = {Slot(0, 0, kPages * kPageSize)};
    switch (kind) {
      case Kind::kRing:
        return MakeRingVm(slots, 1024);
      case Kind::kPml:
        return MakePmlVm(slots);
      case Kind::kBitmap:
        break;
    }
    return MakeVm(slots);
  }
  ~OwnedDirtyLogTest() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  void WritePages(uint64_t first, uint64_t end, uint64_t value) {
    for (uint64_t page = first; page < end; ++page) {
      Write(*vm_, page * kPageSize, value);
    }
  }
  int PagesThatDiffer() {
    int differ = 0;
    for (uint64_t page = 0; page < kPages; ++page) {
      differ += destination_[page] != ReadValue(*vm_, page * kPageSize);
    }
    return differ;
  }
  Reason ReasonOf(const absl::Status& status) {
    return DetailOf(status).reason;
  }

  const std::unique_ptr<Vm> vm_ = Make(GetParam());
  std::vector<uint64_t> destination_ = std::vector<uint64_t>(kPages);
  Client first_{*vm_, 1, destination_};
  Client second_{*vm_, 2, destination_};
};

// While a log is being switched on or off, a client finds no log: memory is not
// protected then, so a page that the guest writes is in no set.
TEST_P(OwnedDirtyLogTest, ALogIsOnFromItsProtectionUntilNobodyMarks) {
  WritePages(0, 16, 1);
  int looks = 0;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event&) {
      ++looks;
      EXPECT_FALSE(vm_->FindDirtyLog().has_value());
    });
    ASSERT_TRUE(first_.Start().ok());
  }
  EXPECT_GT(looks, 0);
  EXPECT_TRUE(vm_->FindDirtyLog().has_value());
  looks = 0;
  bool counted = false;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      counted |= event.point == HookPoint::kCountToSwitch;
      // The slots without logging have been published.
      if (!counted || event.point != HookPoint::kGracePeriod) return;
      ++looks;
      EXPECT_FALSE(vm_->FindDirtyLog().has_value());
    });
    ASSERT_TRUE(vm_->StopDirtyLog({.by = first_.Call(),
                                   .undelivered = Undelivered::kDiscard},
                                  nullptr)
                    .ok());
  }
  EXPECT_TRUE(counted);
  EXPECT_GT(looks, 0);
}

// Another client harvests during a migration. It must not take the owner's
// pages.
TEST_P(OwnedDirtyLogTest, AnotherHarvestTakesNoPageFromTheOwner) {
  ASSERT_TRUE(first_.Start().ok());
  WritePages(0, 100, 1);
  first_.Round();
  WritePages(50, 150, 2);
  EXPECT_EQ(ReasonOf(vm_->SealDirtyLog(second_.Call(), 0, nullptr).status()),
            Reason::kLogOwned);
  EXPECT_EQ(ReasonOf(vm_->ClearDirtyLog(second_.Call(), 0, first_.epoch(), 0,
                                        kPages, MaskOf(kPages, {60}), nullptr)
                         .status()),
            Reason::kLogOwned);
  EXPECT_EQ(ReasonOf(second_.Acquire(LogOwner::Force::kNo)), Reason::kLogOwned);
  EXPECT_EQ(ReasonOf(vm_->StopDirtyLog({.by = second_.Call(),
                                        .undelivered = Undelivered::kDiscard},
                                       nullptr)
                         .status()),
            Reason::kLogOwned);
  std::vector<uint64_t> looked(kPages / 64);
  EXPECT_TRUE(ReadLog(*vm_, 0, 0, 0, absl::MakeSpan(looked)).ok());
  EXPECT_EQ(PagesOf(looked).size(), 100u);
  EXPECT_EQ(first_.Round(), 100u);
  EXPECT_EQ(PagesThatDiffer(), 0);
}

// The owner dies between its clear and its copy. The cleared pages must not be
// lost.
TEST_P(OwnedDirtyLogTest, WhoTakesOverHasWhatTheDeadOwnerHadCleared) {
  ASSERT_TRUE(first_.Start().ok());
  WritePages(0, 100, 1);
  first_.Round();
  WritePages(50, 150, 2);
  EXPECT_EQ(first_.Clear().size(), 100u);
  WritePages(140, 160, 3);
  // The second client takes over from the dead owner.
  ASSERT_TRUE(second_.Acquire(LogOwner::Force::kYes).ok());
  EXPECT_EQ(vm_->CountUndelivered(),
            (UndeliveredCounts{.open = 20, .sealed = 100}));
  EXPECT_EQ(second_.Round(), 110u);
  EXPECT_TRUE(vm_->CountUndelivered().none());
  EXPECT_EQ(PagesThatDiffer(), 0);
}

// The dead owner has copied pages and not acknowledged them. The next owner
// gets them again.
TEST_P(OwnedDirtyLogTest, ACopyThatWasNotAcknowledgedIsMadeAgain) {
  ASSERT_TRUE(first_.Start().ok());
  WritePages(0, 10, 1);
  first_.Copy(first_.Clear());
  WritePages(0, 5, 2);
  ASSERT_TRUE(second_.Acquire(LogOwner::Force::kYes).ok());
  EXPECT_EQ(ReasonOf(first_.Acknowledge()), Reason::kLogFenced);
  EXPECT_EQ(second_.Round(), 10u);
  EXPECT_EQ(PagesThatDiffer(), 0);
}

// The answer to a clear was lost, so the client repeats the clear.
TEST_P(OwnedDirtyLogTest, ARepeatedClearIsAnsweredAsTheFirst) {
  ASSERT_TRUE(first_.Start().ok());
  WritePages(3, 5, 1);
  ASSERT_THAT(first_.Clear(), ElementsAre(3, 4));
  const auto again = vm_->ClearDirtyLog(first_.Call(), 0, first_.epoch(), 0, 64,
                                        MaskOf(64, {3, 4, 5}), nullptr);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->cleared_page_count, 0u);
  EXPECT_EQ(again->already_in_flight_page_count, 2u);
  EXPECT_EQ(again->already_clean_page_count, 1u);
  Write(*vm_, 3 * kPageSize, 7);
  first_.Copy({3, 4});
  ASSERT_TRUE(first_.Acknowledge().ok());
  EXPECT_EQ(first_.Round(), 1u) << "written since the clear";
  EXPECT_EQ(PagesThatDiffer(), 0);
}

TEST_P(OwnedDirtyLogTest, AStartThatIsRepeatedFindsItsLog) {
  ASSERT_TRUE(first_.Start().ok());
  const LogId id = vm_->FindDirtyLog()->state.id;
  WritePages(0, 3, 1);
  ASSERT_TRUE(first_.Start().ok());
  EXPECT_EQ(vm_->FindDirtyLog()->state.id, id);
  EXPECT_EQ(first_.Round(), 3u);
  EXPECT_EQ(ReasonOf(second_.Start()), Reason::kDirtyLogActive);
}

TEST_P(OwnedDirtyLogTest, AnOwnerStopsWhatIsDeliveredAndForceStopsAnything) {
  ASSERT_TRUE(first_.Start().ok());
  WritePages(0, 3, 1);
  first_.Clear();
  const absl::Status refused =
      vm_->StopDirtyLog({.by = first_.Call()}, nullptr).status();
  EXPECT_EQ(ErrorOf(refused),
            ErrorText(absl::StatusCode::kFailedPrecondition,
                      Reason::kUndeliveredPages, "undelivered", EBUSY));
  EXPECT_EQ(DetailOf(refused).metadata.at("in_flight_page_count"), "3");
  EXPECT_EQ(ReasonOf(vm_->StopDirtyLog({}, nullptr).status()),
            Reason::kUndeliveredPages)
      << "force is about the owner, not about pages";
  ASSERT_TRUE(first_.Acknowledge().ok());
  EXPECT_TRUE(vm_->StopDirtyLog({.by = first_.Call()}, nullptr).ok());
  EXPECT_FALSE(vm_->LogsDirtyPages());
  ASSERT_TRUE(second_.Start().ok());
  WritePages(0, 3, 1);
  const auto stopped =
      vm_->StopDirtyLog({.undelivered = Undelivered::kDiscard}, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->discarded, UndeliveredCounts{.open = 3});
}

TEST_P(OwnedDirtyLogTest, ACheckOfAStartStartsNothing) {
  DirtyLogStart start;
  start.id = {.high = 2, .low = 2};
  start.claim = first_.Claim();
  start.now = MonotonicTime::Now();
  absl::StatusOr<absl::optional<DirtyLogView>> log =
      vm_->CheckDirtyLogStart(start);
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_FALSE(log->has_value());
  EXPECT_FALSE(vm_->LogsDirtyPages());
  EXPECT_FALSE(vm_->FindDirtyLogSummary().has_value());
  EXPECT_FALSE(vm_->FindDirtyLogEnd().has_value());
  ASSERT_TRUE(first_.Start().ok());
  log = vm_->CheckDirtyLogStart(start);
  ASSERT_TRUE(log.ok()) << log.status();
  ASSERT_TRUE(log->has_value());
  EXPECT_EQ((*log)->state.id, vm_->FindDirtyLogSummary()->id);
  EXPECT_EQ(vm_->FindDirtyLogEnd(), MonotonicTime::InfiniteFuture());
  start.ttl = absl::Seconds(60);
  EXPECT_EQ(ReasonOf(vm_->CheckDirtyLogStart(start).status()),
            Reason::kDirtyLogActive)
      << "other settings";
  start.ttl = absl::InfiniteDuration();
  start.claim = second_.Claim();
  EXPECT_EQ(ReasonOf(vm_->CheckDirtyLogStart(start).status()),
            Reason::kDirtyLogActive);
}

TEST_P(OwnedDirtyLogTest, WhatASlotHasIsToldWithoutTheOthers) {
  EXPECT_FALSE(vm_->FindSlotLog(0).has_value());
  EXPECT_TRUE(vm_->CountUndeliveredBySlot(nullptr).empty());
  ASSERT_TRUE(first_.Start().ok());
  WritePages(0, 3, 1);
  first_.Clear();
  WritePages(2, 7, 2);
  const absl::optional<SlotLogView> slot = vm_->FindSlotLog(0);
  ASSERT_TRUE(slot.has_value());
  EXPECT_EQ(slot->state, vm_->FindDirtyLog()->state.slots[0]);
  EXPECT_EQ(slot->state.in_flight_page_count, 3u);
  EXPECT_FALSE(vm_->FindSlotLog(1).has_value());
  EXPECT_THAT(vm_->CountUndeliveredBySlot(nullptr),
              ElementsAre(SlotUndelivered{0, {.open = 5, .in_flight = 3}}));
}

TEST_P(OwnedDirtyLogTest, ALogWithoutAnOwnersCallEndsAfterItsTtl) {
  DirtyLogStart start;
  start.id = {.high = 1, .low = 1};
  start.claim = first_.Claim();
  start.ttl = absl::Seconds(60);
  start.now = MonotonicTime::Now();
  ASSERT_TRUE(vm_->StartDirtyLog(start, nullptr).ok());
  WritePages(0, 3, 1);
  const MonotonicTime end = vm_->FindDirtyLog()->ttl_end;
  EXPECT_GE(end, start.now + start.ttl);
  EXPECT_LE(end, MonotonicTime::Now() + start.ttl);
  EXPECT_FALSE(vm_->StopAbandonedDirtyLog(end - absl::Nanoseconds(1), nullptr)
                   .has_value());
  const auto abandoned = vm_->StopAbandonedDirtyLog(end, nullptr);
  ASSERT_TRUE(abandoned.has_value());
  EXPECT_EQ(abandoned->log.state.owner, "client");
  EXPECT_EQ(abandoned->stopped.discarded, UndeliveredCounts{.open = 3});
  EXPECT_FALSE(vm_->LogsDirtyPages());
  EXPECT_FALSE(vm_->StopAbandonedDirtyLog(end, nullptr).has_value());
}

// A start may take longer than the lease and the ttl. Both begin only at its
// end.
TEST_P(OwnedDirtyLogTest, TheTimeOfAStartIsNotTheOwners) {
  DirtyLogStart start;
  start.id = {.high = 1, .low = 1};
  start.claim = first_.Claim();
  start.claim.lease = absl::Seconds(60);
  start.ttl = absl::Seconds(90);
  const MonotonicTime begin = MonotonicTime::Now();
  start.now = begin - absl::Seconds(100);  // the start has waited since
  const absl::StatusOr<StartResult> started =
      vm_->StartDirtyLog(start, nullptr);
  ASSERT_TRUE(started.ok()) << started.status();
  const DirtyLogView& log = started->log;
  EXPECT_GE(log.state.last_owner_call, begin);
  EXPECT_GE(log.state.lease_end, begin + start.claim.lease);
  EXPECT_GE(log.ttl_end, begin + start.ttl);
  const absl::optional<DirtyLogView> found = vm_->FindDirtyLog();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.lease_end, log.state.lease_end);
  EXPECT_EQ(found->ttl_end, log.ttl_end);
  EXPECT_EQ(ReasonOf(second_.Acquire(LogOwner::Force::kNo)), Reason::kLogOwned);
  EXPECT_FALSE(
      vm_->StopAbandonedDirtyLog(MonotonicTime::Now(), nullptr).has_value());
}

INSTANTIATE_TEST_SUITE_P(Kinds, OwnedDirtyLogTest,
                         ::testing::Values(Kind::kBitmap, Kind::kRing,
                                           Kind::kPml));

}  // namespace
}  // namespace mmu
