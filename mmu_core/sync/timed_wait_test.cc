#include "mmu_core/sync/timed_wait.h"

#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmu {
namespace {

TEST(WaitUntilTest, APastDeadlineIsNotWaitedFor) {
  Mutex mu;
  CondVar changed;
  MutexLock lock(mu);
  EXPECT_FALSE(WaitUntil(changed, mu, MonotonicTime::Now()));
  EXPECT_FALSE(WaitUntil(changed, mu, MonotonicTime::InfinitePast()));
}

TEST(WaitUntilTest, ADeadlineEndsTheWait) {
  Mutex mu;
  CondVar changed;
  const MonotonicTime deadline = MonotonicTime::Now() + absl::Milliseconds(20);
  MutexLock lock(mu);
  while (WaitUntil(changed, mu, deadline)) {
  }
  EXPECT_GE(MonotonicTime::Now(), deadline);
}

TEST(WaitUntilTest, AWaitWithoutEndIsEndedByTheChange) {
  Mutex mu;
  CondVar changed;
  bool ready = false;
  std::thread changer([&] {
    MutexLock lock(mu);
    ready = true;
    changed.NotifyAll();
  });
  {
    MutexLock lock(mu);
    while (!ready) {
      EXPECT_TRUE(WaitUntil(changed, mu, MonotonicTime::InfiniteFuture()));
    }
  }
  changer.join();
}

}  // namespace
}  // namespace mmu
