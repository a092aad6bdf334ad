#include "server/rpc/timer.h"

#include <string>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "server/base/event.h"

namespace mmud {
namespace {

TEST(TimerTest, CallsInTheOrderOfTheTimesAndNotWhatWasCancelled) {
  std::string calls;  // used only by the timer's thread, until `last`
  Event last;
  Timer timer;
  const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
  timer.At(now + absl::Milliseconds(60), [&] {
    calls += "c";
    last.Set();
  });
  timer.At(now + absl::Milliseconds(40), [&] { calls += "b"; });
  const Timer::Ticket never =
      timer.At(now + absl::Milliseconds(50), [&] { calls += "x"; });
  timer.At(now - absl::Seconds(1), [&] { calls += "a"; });
  timer.Cancel(never);
  ASSERT_TRUE(last.WaitFor(absl::Seconds(60)));
  EXPECT_EQ(calls, "abc");
  EXPECT_GE(mmu::MonotonicTime::Now() - now, absl::Milliseconds(60));
}

TEST(TimerTest, WhatHasNotComeIsForgottenAtTheEnd) {
  bool called = false;
  {
    Timer timer;
    timer.At(mmu::MonotonicTime::Now() + absl::Hours(1),
             [&] { called = true; });
  }
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace mmud
