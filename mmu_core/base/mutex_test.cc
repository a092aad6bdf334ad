#include "mmu_core/base/mutex.h"

#include <chrono>
#include <thread>

#include "gtest/gtest.h"

namespace mmu {
namespace {

// With NDEBUG nothing is recorded, and IsHeld says yes.
#ifndef NDEBUG

bool IsHeldByAnotherThread(const Mutex& mutex) {
  bool held = false;
  std::thread([&] { held = mutex.IsHeld(); }).join();
  return held;
}

TEST(MutexTest, TheThreadThatLocksHoldsIt) {
  Mutex mutex;
  EXPECT_FALSE(mutex.IsHeld());
  mutex.Lock();
  EXPECT_TRUE(mutex.IsHeld());
  EXPECT_FALSE(IsHeldByAnotherThread(mutex));
  mutex.Unlock();
  EXPECT_FALSE(mutex.IsHeld());
  if (!mutex.TryLock()) FAIL() << "nobody holds it";
  EXPECT_TRUE(mutex.IsHeld());
  std::thread([&] {
    if (mutex.TryLock()) {
      ADD_FAILURE() << "two threads hold it";
      mutex.Unlock();
    }
  }).join();
  EXPECT_TRUE(mutex.IsHeld());
  mutex.Unlock();
}

class MutexWaitTest : public ::testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Timed, MutexWaitTest, ::testing::Bool());

TEST_P(MutexWaitTest, AThreadThatHasWaitedForAConditionHoldsTheMutex) {
  Mutex mutex;
  CondVar changed;
  bool seen = false;
  mutex.Lock();
  std::thread other([&] {
    const MutexLock lock(mutex);
    EXPECT_TRUE(mutex.IsHeld());
    seen = true;
    changed.NotifyAll();
  });
  while (!seen) {
    if (GetParam()) {
      changed.WaitFor(mutex, std::chrono::hours(1));
    } else {
      changed.Wait(mutex);
    }
  }
  EXPECT_TRUE(mutex.IsHeld());
  mutex.Unlock();
  other.join();
}

TEST(MutexDeathTest, AssertHeldEndsAProgramWhoseThreadDoesNotHoldIt) {
  Mutex mutex;
  EXPECT_DEATH(mutex.AssertHeld(), "IsHeld");
  mutex.Lock();
  mutex.AssertHeld();
  EXPECT_DEATH(std::thread([&] { mutex.AssertHeld(); }).join(), "IsHeld");
  mutex.Unlock();
}

#endif

}  // namespace
}  // namespace mmu
