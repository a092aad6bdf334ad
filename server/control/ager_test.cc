#include "server/control/ager.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "server/control/working_set_sizes.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// Two generations that found so many pages young; `left` of the older ones were
// not young any more.
mmu::WorkingSetSnapshot Two(uint64_t before, uint64_t now, uint64_t left) {
  mmu::WorkingSetSnapshot snapshot;
  snapshot.generations = {{.sequence = 2,
                           .began_at_nanos = 20,
                           .ended_at_nanos = 30,
                           .totals = {.young_pages = now}},
                          {.sequence = 1,
                           .began_at_nanos = 0,
                           .ended_at_nanos = 10,
                           .totals = {.young_pages = before}}};
  snapshot.bins = {{.sequence = 2, .pages = now},
                   {.sequence = 1, .pages = left}};
  return snapshot;
}

TEST(ChangedRatioTest, IsTheShareOfThePagesThatWereYoungInOneGenerationOnly) {
  EXPECT_EQ(ChangedRatio(Two(100, 100, 0)), 0.0);
  EXPECT_EQ(ChangedRatio(Two(100, 100, 100)), 1.0);
  EXPECT_EQ(ChangedRatio(Two(100, 50, 50)), 0.5) << "50 left, none came";
  EXPECT_EQ(ChangedRatio(Two(50, 100, 0)), 0.5) << "50 came, none left";
  EXPECT_EQ(ChangedRatio(Two(0, 10, 0)), 1.0);
  EXPECT_EQ(ChangedRatio(Two(0, 0, 0)), absl::nullopt);
  EXPECT_EQ(ChangedRatio(Two(100, 0, 0)), absl::nullopt)
      << "the memslot of the pages is gone";
}

TEST(ChangedRatioTest, IsUnknownBeforeTwoGenerationsHaveEnded) {
  mmu::WorkingSetSnapshot snapshot = Two(100, 100, 0);
  snapshot.generations[0].ended_at_nanos = absl::nullopt;
  EXPECT_EQ(ChangedRatio(snapshot), absl::nullopt);
  EXPECT_EQ(ChangedRatio(mmu::WorkingSetSnapshot()), absl::nullopt);
}

TEST(NextIntervalTest, FollowsTheChangeWithinItsLimits) {
  AgerSettings settings;
  settings.min_interval = absl::Seconds(1);
  settings.max_interval = absl::Seconds(10);
  const absl::Duration four = absl::Seconds(4);
  EXPECT_EQ(NextInterval(four, 0.9, settings), absl::Seconds(2));
  EXPECT_EQ(NextInterval(four, 0.3, settings), four) << "comes to rest";
  EXPECT_EQ(NextInterval(four, 0.1, settings), absl::Seconds(6));
  EXPECT_EQ(NextInterval(four, absl::nullopt, settings), absl::Seconds(6));
  EXPECT_EQ(NextInterval(absl::Seconds(1), 1.0, settings), absl::Seconds(1));
  EXPECT_EQ(NextInterval(absl::Seconds(9), 0.0, settings), absl::Seconds(10));
}

class AgerTest : public ::testing::Test {
 protected:
  AgerTest() : ager_(*vm_, sizes_) {}

  static std::unique_ptr<mmu::Vm> Make() {
    mmu::VmConfig config;
    config.memslots = {mmu::testing::Slot(0, 0, kMiB),
                       mmu::testing::Slot(1, 8 * kGiB, kMiB)};
    return mmu::testing::MakeVmFrom(config);
  }
  void Switch(bool enabled) {
    ASSERT_TRUE(ager_
                    .Update([enabled](AgerSettings* settings) {
                      settings->enabled = enabled;
                      settings->cpu_percent = 10;
                      return absl::OkStatus();
                    })
                    .ok());
  }
  uint64_t newest() const { return vm_->FindWorkingSet()->View().newest; }

  const std::unique_ptr<mmu::Vm> vm_ = Make();
  WorkingSetSizes sizes_;
  Ager ager_;
  const mmu::MonotonicTime begin_ = mmu::MonotonicTime::Now();
};

TEST_F(AgerTest, DoesNothingWhileItIsOff) {
  const Ager::Outcome step = ager_.Step(begin_);
  EXPECT_EQ(step.due, mmu::MonotonicTime::InfiniteFuture());
  EXPECT_EQ(vm_->FindWorkingSet(), nullptr);
  EXPECT_EQ(sizes_.Get(vm_->FindWorkingSet()), absl::nullopt);
}

// A step examines one GiB, and the steps are apart as the budget says.
TEST_F(AgerTest, WorksPieceByPieceWithinItsBudget) {
  Switch(true);
  const Ager::Outcome first = ager_.Step(begin_);
  EXPECT_FALSE(first.ended_generation);
  EXPECT_EQ(first.due, begin_ + first.cpu_time * 10);
  const Ager::Outcome early = ager_.Step(first.due - absl::Nanoseconds(1));
  EXPECT_EQ(early.due, first.due) << "did nothing";
  EXPECT_EQ(early.cpu_time, absl::ZeroDuration());
  const Ager::Outcome second = ager_.Step(first.due);
  EXPECT_TRUE(second.ended_generation);
  EXPECT_TRUE(sizes_.Get(vm_->FindWorkingSet()).has_value());
  const AgerState state = ager_.state();
  EXPECT_EQ(state.generations, 1u);
  EXPECT_EQ(state.cpu_time, first.cpu_time + second.cpu_time);
  // The next generation begins an interval after this one began.
  EXPECT_GE(second.due, begin_ + state.interval);
  EXPECT_FALSE(ager_.Step(second.due).ended_generation);
  EXPECT_EQ(newest(), 2u);
}

TEST_F(AgerTest, AScanThatIsSwitchedOffEndsAsIncomplete) {
  Switch(true);
  const Ager::Outcome first = ager_.Step(begin_);
  Switch(false);
  EXPECT_EQ(ager_.Step(begin_).due, mmu::MonotonicTime::InfiniteFuture());
  EXPECT_TRUE(vm_->BeginGeneration({}).ok()) << "no scan lasts";
  // Switched on again, it begins as soon as its budget lets it.
  Switch(true);
  EXPECT_EQ(ager_.Step(begin_).due, first.due);
  EXPECT_EQ(newest(), 2u);
  ager_.Step(first.due);
  EXPECT_EQ(newest(), 3u);
}

// The pause after a piece may be longer than the longest interval.
TEST_F(AgerTest, NoIntervalCutsThePauseOfTheBudget) {
  Switch(true);
  ASSERT_TRUE(ager_
                  .Update([](AgerSettings* settings) {
                    settings->cpu_percent = 1;
                    settings->min_interval = absl::Nanoseconds(1);
                    settings->max_interval = absl::Nanoseconds(1);
                    return absl::OkStatus();
                  })
                  .ok());
  const Ager::Outcome first = ager_.Step(begin_);
  const Ager::Outcome second = ager_.Step(first.due);
  EXPECT_TRUE(second.ended_generation);
  EXPECT_EQ(second.due, first.due + second.cpu_time * 100);
  EXPECT_EQ(ager_.Step(second.due - absl::Nanoseconds(1)).cpu_time,
            absl::ZeroDuration());
  EXPECT_EQ(newest(), 1u);
}

TEST_F(AgerTest, AShorterIntervalTakesEffectAtOnce) {
  Switch(true);
  ager_.Step(ager_.Step(begin_).due);
  ASSERT_EQ(newest(), 1u);
  ASSERT_TRUE(ager_
                  .Update([](AgerSettings* settings) {
                    settings->cpu_percent = 100;
                    settings->min_interval = absl::Nanoseconds(1);
                    settings->max_interval = absl::Nanoseconds(1);
                    return absl::OkStatus();
                  })
                  .ok());
  ager_.Step(begin_ + absl::Milliseconds(900));
  EXPECT_EQ(newest(), 2u);
}

TEST_F(AgerTest, WhatIsForgottenStaysForgotten) {
  Switch(true);
  const Ager::Outcome first = ager_.Step(begin_);
  const Ager::Outcome second = ager_.Step(first.due);
  const Ager::Outcome third = ager_.Step(second.due);
  ASSERT_EQ(newest(), 2u) << "its scan goes on";
  ager_.ForgetWorkingSet();
  EXPECT_FALSE(ager_.state().settings.enabled);
  EXPECT_EQ(vm_->FindWorkingSet(), nullptr);
  EXPECT_EQ(sizes_.Get(vm_->FindWorkingSet()), absl::nullopt);
  // Switched on before the next step, it begins anew.
  Switch(true);
  const Ager::Outcome fourth =
      ager_.Step(std::max(third.due, begin_ + absl::Minutes(1)));
  EXPECT_FALSE(fourth.failed);
  ASSERT_EQ(newest(), 1u);
  EXPECT_EQ(sizes_.Get(vm_->FindWorkingSet()), absl::nullopt)
      << "of the former one";
  // And forgotten again, it does not.
  ager_.ForgetWorkingSet();
  EXPECT_EQ(ager_.Step(begin_ + absl::Minutes(2)).due,
            mmu::MonotonicTime::InfiniteFuture());
  EXPECT_EQ(vm_->FindWorkingSet(), nullptr);
}

TEST_F(AgerTest, ALackOfMemoryIsCountedAndTriedAgain) {
  Switch(true);
  mmu::MonotonicTime now = begin_;
  uint64_t failures = 0;
  for (uint64_t n = 1;; ++n) {
    Ager::Outcome step;
    const mmu::testing::Attempt attempt =
        mmu::testing::FailOneAllocation(n, [&] {
          step = ager_.Step(now);
          return absl::OkStatus();
        });
    now = std::max(step.due, now + absl::Minutes(2));
    if (!attempt.failed) break;
    EXPECT_TRUE(step.failed) << n;
    ++failures;
    // From the beginning, without an open generation.
    while (!ager_.Step(now).ended_generation) now = now + absl::Minutes(2);
    now = now + absl::Minutes(2);
    vm_->ForgetWorkingSet();
  }
  EXPECT_GE(failures, 5u);
  EXPECT_EQ(ager_.state().failures, failures);
}

TEST_F(AgerTest, WhatFailsIsCountedAndTriedAgain) {
  Switch(true);
  Ager::Outcome step;
  {
    const auto other = vm_->BeginGeneration({}).value();
    step = ager_.Step(begin_);
    EXPECT_TRUE(step.failed);
    EXPECT_EQ(ager_.state().failures, 1u);
    EXPECT_TRUE(
        absl::StrContains(ager_.state().last_error.message(), "already"));
  }
  EXPECT_GE(step.due, begin_ + absl::Seconds(1));
  EXPECT_FALSE(ager_.Step(step.due).failed);
  EXPECT_TRUE(ager_.state().last_error.ok());
}

TEST_F(AgerTest, AnUpdateThatFailsChangesNothing) {
  EXPECT_FALSE(ager_
                   .Update([](AgerSettings* settings) {
                     settings->enabled = true;
                     return absl::InternalError("no");
                   })
                   .ok());
  EXPECT_FALSE(ager_.state().settings.enabled);
}

}  // namespace
}  // namespace mmud
