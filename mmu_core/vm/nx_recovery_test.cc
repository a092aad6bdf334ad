#include "mmu_core/vm/jobs/nx_recovery.h"

#include <chrono>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

constexpr uint64_t k2MiB = 2 * kMiB;

class NxRecoveryTest : public ::testing::Test {
 protected:
  // A VM of eight 2M pages, with the default parameters, but mitigated.
  NxRecoveryTest() {
    EXPECT_TRUE(parameters_.SetNxHugePages("force").ok());
    VmConfig config;
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, 8 * kMiB, Level::k2M),
                       Slot(1, 8 * kMiB, 8 * kMiB, Level::k2M)};
    vm_ = MakeVmFrom(config, parameters_);
  }
  void ExecuteFrom(int first, int count) {
    for (int i = first; i < first + count; ++i) {
      Exec(*vm_, static_cast<uint64_t>(i) * k2MiB);
    }
  }
  uint64_t Splits() const { return vm_->Stats().nx_lpage_splits; }
  Level LevelAt(int page_2m) const {
    return LevelOf(vm_->state(), Gfn(page_2m * k2MPages));
  }

  NxParameters parameters_{ItlbMultihit::kNo};
  std::unique_ptr<Vm> vm_;
};

// Covers: SPTE-53
TEST_F(NxRecoveryTest, ARunZapsItsShareRoundedUpOldestFirst) {
  ExecuteFrom(0, 7);
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 3), 3u);
  EXPECT_EQ(Splits(), 4u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(LevelAt(i), Level::k256T) << i;
  for (int i = 3; i < 7; ++i) EXPECT_EQ(LevelAt(i), Level::k4K) << i;
  Read(*vm_, 0);
  EXPECT_EQ(LevelAt(0), Level::k2M) << "the huge page is back";
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 0), 0u);
  EXPECT_EQ(Splits(), 4u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SPTE-53, SPTE-54
TEST_F(NxRecoveryTest, WithRatio1ARunEmptiesTheList) {
  ExecuteFrom(0, 8);
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 8u);
  EXPECT_EQ(Splits(), 0u);
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 0u);
}

// Pages of a logged slot would be small in any case.
// Covers: SPTE-53
TEST_F(NxRecoveryTest, TablesOfALoggedSlotAreUnlistedAndStay) {
  ExecuteFrom(0, 8);
  DirtyLogConfig log;
  log.slots = {0};
  ASSERT_TRUE(StartLog(*vm_, log, nullptr).ok());
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 4u);
  EXPECT_EQ(Splits(), 0u);
  EXPECT_EQ(LevelAt(0), Level::k4K);
  EXPECT_EQ(LevelAt(4), Level::k256T);
}

// Covers: TLB-07
TEST_F(NxRecoveryTest, AChangeOfTheListAloneNeedsNoFlush) {
  ExecuteFrom(0, 8);
  ASSERT_TRUE(StartLog(*vm_).ok());
  const uint64_t flushes = FlushesOf(*vm_);
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 0u);
  EXPECT_EQ(Splits(), 0u);
  EXPECT_EQ(FlushesOf(*vm_), flushes);
}

// A vCPU may hold translations of the zapped tables.
TEST_F(NxRecoveryTest, ARunEndsWithAFlush) {
  ExecuteFrom(0, 2);
  const uint64_t flushes = FlushesOf(*vm_);
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 2u);
  // One flush at the end, and one more per yield.
  EXPECT_EQ(FlushesOf(*vm_),
            flushes + 1 + YieldsOf(*vm_, LockMode::kRead, LockOp::kRecover));
  EXPECT_EQ(AuditFindings(*vm_), "") << "no TLB knows more than the tables";
}

// The erratum that is mitigated is one of x86 processors.
TEST(NxRecoverySettingsTest, AMitigationLeavesStage2TablesAlone) {
  NxParameters parameters(ItlbMultihit::kNo);
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.memslots = {Slot(0, 0, k2MiB, Level::k2M)};
  auto vm = MakeVmFrom(config, parameters);
  ASSERT_EQ(Write(*vm, 0), AccessOutcome::kDone);
  const uint64_t flushes = FlushesOf(*vm);
  ASSERT_TRUE(parameters.SetNxHugePages("force").ok());
  EXPECT_FALSE(vm->state().nx_huge_pages.mitigated());
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(FlushesOf(*vm), flushes);
}

// Covers: SPTE-53
TEST(NxRecoverySettingsTest, ThePeriodGivesEachTableAnHour) {
  const auto period = [](uint32_t ratio, absl::Duration set) {
    return RecoveryPeriodOf({.ratio = ratio, .period = set});
  };
  const absl::Duration automatic = absl::ZeroDuration();
  EXPECT_EQ(period(60, automatic), absl::Minutes(1));
  EXPECT_EQ(period(1, automatic), absl::Hours(1));
  EXPECT_EQ(period(3600, automatic), absl::Seconds(1));
  EXPECT_EQ(period(1'000'000, automatic), absl::Seconds(1)) << "not less";
  EXPECT_EQ(period(60, absl::Milliseconds(5)), absl::Milliseconds(5));
  EXPECT_EQ(period(0, automatic), absl::InfiniteDuration()) << "no runs";
  EXPECT_EQ(NxRecoverySettings().ratio, 60u);
}

// Covers: SPTE-53
TEST_F(NxRecoveryTest, TheWorkerFollowsChangesOfItsPeriod) {
  ExecuteFrom(0, 8);
  parameters_.SetRecovery({.ratio = 0, .period = absl::Milliseconds(1)});
  EXPECT_EQ(Splits(), 8u);
  // The worker must be woken, because its next run would be in a minute.
  parameters_.SetRecovery({.ratio = 1, .period = absl::Milliseconds(1)});
  const MonotonicTime limit = MonotonicTime::Now() + absl::Seconds(30);
  while (Splits() != 0 && MonotonicTime::Now() < limit)
    std::this_thread::yield();
  EXPECT_EQ(Splits(), 0u);
}

TEST_F(NxRecoveryTest, AVmWhoseWorkerCannotBeMadeIsNotCreated) {
  LimitThreads(0);
  const absl::Status none = Vm::Create(vm_->config(), parameters_).status();
  LimitThreads(-1);
  EXPECT_EQ(DetailOf(none).reason, Reason::kThreadsExhausted);
}

TEST_F(NxRecoveryTest, AWorkerThatCouldNotBeMadeIsMadeWithTheNextChange) {
  NxParameters parameters{ItlbMultihit::kNo};
  const auto vm = MakeVmFrom(vm_->config(), parameters);
  LimitThreads(0);
  EXPECT_TRUE(parameters.SetNxHugePages("force").ok());
  EXPECT_FALSE(vm->state().nx_recovery.status().ok());
  LimitThreads(-1);
  parameters.SetRecovery({.ratio = 1, .period = absl::Hours(1)});
  EXPECT_TRUE(vm->state().nx_recovery.status().ok());
}

TEST_F(NxRecoveryTest, AWorkerThatSleepsForAnHourEndsWithItsVm) {
  parameters_.SetRecovery({.ratio = 1, .period = absl::ZeroDuration()});
  const MonotonicTime start = MonotonicTime::Now();
  vm_.reset();
  EXPECT_LT(MonotonicTime::Now() - start, absl::Seconds(30));
}

// NX recovery has taken a table off the list. Before it zaps the table, another
// thread recovers the huge page. The entry that led to the table maps the huge
// page now, and must stay.
// Covers: TDP-40, SPTE-53
TEST_F(NxRecoveryTest, Race23TheTableIsGoneBeforeRecoveryComesToIt) {
  ExecuteFrom(0, 1);
  uint64_t zapped = 99;
  Interleaving threads;
  threads.Add("recovery",
              [&] { zapped = RecoverNxHugePages(vm_->state(), 1); });
  threads.Add("recover huge", [&] {
    Recover(*vm_, GfnRange::Of(Gfn(0), k2MPages));
    EXPECT_EQ(LevelAt(0), Level::k2M);
  });
  threads.RunTo("recovery", HookPoint::kNxTakenToZap);
  EXPECT_EQ(Splits(), 0u);
  threads.RunToEnd("recover huge");
  threads.RunToEnd("recovery");
  EXPECT_EQ(zapped, 0u);
  EXPECT_EQ(LevelAt(0), Level::k2M) << "the huge page was left alone";
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The huge page is recovered between the look at the entry and the exchange.
// The exchange fails, and there is nothing left to try.
// Covers: TDP-40
TEST_F(NxRecoveryTest, Race23TheExchangeIsLost) {
  ExecuteFrom(0, 1);
  uint64_t zapped = 99;
  Interleaving threads;
  threads.Add("recovery",
              [&] { zapped = RecoverNxHugePages(vm_->state(), 1); });
  threads.Add("recover huge",
              [&] { Recover(*vm_, GfnRange::Of(Gfn(0), k2MPages)); });
  threads.RunTo("recovery", HookPoint::kSnapshotToExchange);
  threads.RunToEnd("recover huge");
  threads.RunToEnd("recovery");
  EXPECT_EQ(zapped, 0u);
  EXPECT_EQ(LevelAt(0), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The table is off the list: without a second try it would stay for good.
// Covers: TDP-40
TEST_F(NxRecoveryTest, Race55AnEntryThatLosesAccessedGoesAtTheSecondTry) {
  ExecuteFrom(0, 1);
  uint64_t zapped = 99;
  Interleaving threads;
  threads.Add("recovery",
              [&] { zapped = RecoverNxHugePages(vm_->state(), 1); });
  threads.RunTo("recovery", HookPoint::kSnapshotToExchange);
  EntryOf(*vm_, Gfn(0), Level::k2M)
      .FetchAnd(~vm_->state().tdp.format().accessed_mask());
  threads.RunToEnd("recovery");
  EXPECT_EQ(zapped, 1u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

}  // namespace
}  // namespace mmu::testing
