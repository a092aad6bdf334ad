#include "mmu_core/sync/rcu.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

// More than liburcu takes for a grace period without readers.
constexpr std::chrono::milliseconds kTimeToFail(100);

TEST(RcuTest, SectionsNest) {
  EXPECT_FALSE(InRcuReadSection());
  {
    RcuReadGuard outer;
    {
      RcuReadGuard inner;
      EXPECT_TRUE(InRcuReadSection());
    }
    EXPECT_TRUE(InRcuReadSection());
  }
  EXPECT_FALSE(InRcuReadSection());
}

TEST(RcuTest, SynchronizeWaitsForAReaderThatCameBefore) {
  std::atomic<bool> reading{false};
  std::atomic<bool> synchronizing{false};
  std::atomic<bool> left{false};
  std::thread reader([&] {
    RcuReadGuard guard;
    reading = true;
    while (!synchronizing) std::this_thread::yield();
    std::this_thread::sleep_for(kTimeToFail);
    left = true;
  });
  while (!reading) std::this_thread::yield();
  synchronizing = true;
  RcuSynchronize();
  EXPECT_TRUE(left);
  reader.join();
}

TEST(RcuTest, DeferredFunctionRunsOnlyAfterTheReaderLeft) {
  std::atomic<bool> called{false};
  {
    RcuReadGuard guard;
    RcuDefer([](void* p) { *static_cast<std::atomic<bool>*>(p) = true; },
             &called);
    std::this_thread::sleep_for(kTimeToFail);
    EXPECT_FALSE(called);
  }
  RcuBarrier();
  EXPECT_TRUE(called);
}

TEST(RcuTest, HookInsideTheRetiredObjectNeedsNoOther) {
  static int destroyed = 0;
  struct Table {
    ~Table() { ++destroyed; }
    RcuHook hook;
  };
  auto* table = new Table;
  RcuDefer(
      &table->hook, [](void* p) { delete static_cast<Table*>(p); }, table);
  RcuBarrier();
  EXPECT_EQ(destroyed, 1);
}

TEST(RcuTest, DeferredFunctionMayReadAndRetire) {
  static std::atomic<int> calls{0};
  RcuDefer(
      [](void*) {
        RcuReadGuard guard;
        RcuRetire(new int(1));
        ++calls;
      },
      nullptr);
  RcuBarrier();
  RcuBarrier();  // for the object that the deferred function retired
  EXPECT_EQ(calls, 1);
}

// Short-lived threads read an object that is replaced and retired all the time.
// Sanitizers report a use after free or a race if a grace period is too short.
TEST(RcuTest, ReadersNeverSeeARetiredObjectFreed) {
  constexpr int kReplacements = 2'000;
  struct Box {
    explicit Box(int v) : a(v), b(-v) {}
    ~Box() { a = b = 1; }
    int a;
    int b;
  };
  std::atomic<Box*> current{new Box(0)};
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  const auto read = [&] {
    RcuReadGuard guard;
    const Box* box = current.load(std::memory_order_acquire);
    if (box->a + box->b != 0) ++torn;
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) read();
    });
  }
  readers.emplace_back([&] {
    while (!stop) std::thread(read).join();
  });
  for (int i = 1; i <= kReplacements; ++i) {
    RcuRetire(current.exchange(new Box(i), std::memory_order_acq_rel));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  RcuRetire(current.load());
  RcuBarrier();
  EXPECT_EQ(torn, 0);
}

TEST(RcuTest, ThreadLocalDestructorsMayRead) {
  static std::atomic<int> reads{0};
  struct ReadsAtEnd {
    ~ReadsAtEnd() {
      RcuReadGuard guard;
      ++reads;
    }
  };
  std::thread([] {
    // Constructed before the thread registers, so destroyed after that ended.
    static thread_local ReadsAtEnd at_end;
    static_cast<void>(&at_end);
    RcuReadGuard guard;
  }).join();
  EXPECT_EQ(reads, 1);
  RcuSynchronize();  // would hang on a reader left behind
}

TEST(RcuDeathTest, WaitingInsideAReadSectionDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        RcuReadGuard guard;
        RcuSynchronize();
      },
      "InRcuReadSection");
  EXPECT_DEATH(
      {
        RcuReadGuard guard;
        RcuBarrier();
      },
      "InRcuReadSection");
}

}  // namespace
}  // namespace mmu
