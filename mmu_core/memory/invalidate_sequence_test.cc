#include "mmu_core/memory/invalidate_sequence.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/testing/lock_trace.h"

namespace mmu {
namespace {

constexpr GfnRange Range(uint64_t start, uint64_t end) {
  return GfnRange{Gfn(start), Gfn(end)};
}

// Covers: PF-25
TEST(InvalidationGateTest, NothingIsRetriedWithoutInvalidations) {
  InvalidationGate gate;
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(5)));
}

// Covers: PF-25
TEST(InvalidationGateTest, InvalidationInProgressRetriesItsRangeOnly) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(10, 20));
  const uint64_t snapshot = gate.snapshot();
  EXPECT_FALSE(gate.RetryNeeded(snapshot, Gfn(9)));
  EXPECT_TRUE(gate.RetryNeeded(snapshot, Gfn(10)));
  EXPECT_TRUE(gate.RetryNeeded(snapshot, Gfn(19)));
  EXPECT_FALSE(gate.RetryNeeded(snapshot, Gfn(20)));
}

// Covers: PF-21, PF-25
TEST(InvalidationGateTest, CompletedInvalidationRetriesEveryGfnOnce) {
  InvalidationGate gate;
  const uint64_t before = gate.snapshot();
  gate.Begin();
  gate.AddRange(Range(10, 20));
  const uint64_t during = gate.snapshot();
  gate.End();
  EXPECT_TRUE(gate.RetryNeeded(before, Gfn(15)));
  EXPECT_TRUE(gate.RetryNeeded(before, Gfn(1000)));
  EXPECT_TRUE(gate.RetryNeeded(during, Gfn(1000)));
  const uint64_t after = gate.snapshot();
  EXPECT_FALSE(gate.RetryNeeded(after, Gfn(15)));
  EXPECT_FALSE(gate.RetryNeeded(after, Gfn(1000)));
}

// Covers: PF-26
TEST(InvalidationGateTest, GapBetweenConcurrentInvalidationsRetriesToo) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(10, 20));
  gate.Begin();
  gate.AddRange(Range(50, 60));
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(30)));
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(60)));
  gate.End();
  // The two invalidations share one range, which stays until both have ended.
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(15)));
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(55)));
  gate.End();
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(15)));
}

// Covers: PF-26
TEST(InvalidationGateTest, FirstInvalidationForgetsTheRangeBefore) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(10, 20));
  gate.End();
  gate.Begin();
  gate.AddRange(Range(100, 110));
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(15)));
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(50)));
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(105)));
}

// Covers: PF-26
TEST(InvalidationGateTest, RangesOfSeveralSlotsMerge) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(100, 110));
  gate.AddRange(Range(0, 5));
  gate.AddRange(Range(7, 7));  // empty: changes nothing
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(0)));
  EXPECT_TRUE(gate.RetryNeeded(gate.snapshot(), Gfn(109)));
  EXPECT_FALSE(gate.RetryNeeded(gate.snapshot(), Gfn(110)));
}

// A thread without mmu_lock that no longer counts the invalidation must see the
// new sequence (missing_frame.h).
// Covers: PF-26
TEST(InvalidationGateTest, TheSequenceMovesBeforeTheInvalidationIsOver) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(10, 20));
  const uint64_t before = gate.snapshot();
  int seen = 0;
  testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
    if (event.point != HookPoint::kSequenceToCount) return;
    ++seen;
    EXPECT_EQ(gate.snapshot(), before + 1);
    EXPECT_TRUE(gate.MaybeInvalidating(Gfn(15)));
  });
  gate.End();
  EXPECT_EQ(seen, 1);
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(15)));
}

// Covers: PF-22
TEST(InvalidationGateTest, LocklessGuessMissesWhatTheRealCheckFinds) {
  InvalidationGate gate;
  const uint64_t snapshot = gate.snapshot();
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(15)));
  gate.Begin();
  gate.AddRange(Range(10, 20));
  EXPECT_TRUE(gate.MaybeInvalidating(Gfn(15)));
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(20)));
  gate.End();
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(15)));
  EXPECT_TRUE(gate.RetryNeeded(snapshot, Gfn(15)));
}

// Covers: TDP-54
TEST(InvalidationGateTest, ARangeIsInvalidatedIfAnyPageOfItIs) {
  InvalidationGate gate;
  EXPECT_FALSE(gate.IsInvalidating(Range(0, 512)));
  gate.Begin();
  gate.AddRange(Range(10, 11));
  EXPECT_TRUE(gate.IsInvalidating(Range(0, 512)));
  EXPECT_TRUE(gate.IsInvalidating(Range(10, 11)));
  EXPECT_FALSE(gate.IsInvalidating(Range(0, 10)));
  EXPECT_FALSE(gate.IsInvalidating(Range(512, 1024)));
  gate.End();
  EXPECT_FALSE(gate.IsInvalidating(Range(0, 512)));
}

// The timeout is so long that a missed wake-up would time out the test.
TEST(InvalidationGateTest, WhoWaitsIsWokenByTheEndAndByAPublishedSet) {
  InvalidationGate gate;
  gate.WaitWhile([] { return false; }, absl::InfiniteDuration());
  std::atomic<bool> waiting = false;
  const auto wait_for = [&](auto held_back) {
    waiting = false;
    return std::thread([&gate, &waiting, held_back] {
      while (held_back()) {
        gate.WaitWhile(
            [&] {
              waiting = true;
              return held_back();
            },
            absl::Hours(1));
      }
    });
  };
  gate.Begin();
  gate.AddRange(Range(10, 20));
  std::thread fault = wait_for([&] { return gate.MaybeInvalidating(Gfn(15)); });
  while (!waiting) std::this_thread::yield();
  gate.End();
  fault.join();

  std::atomic<bool> published = false;
  fault = wait_for([&] { return !published; });
  while (!waiting) std::this_thread::yield();
  gate.PublishWhenIdle([&] { published = true; });
  fault.join();
}

// Between its look and its wait, a fault holds the lock that the end takes
// before it notifies. So the end cannot return before the fault waits. The
// fault lets it try for some thousand turns.
TEST(InvalidationGateTest, Race45TheEndNotifiesNobodyBetweenLookAndWait) {
  InvalidationGate gate;
  gate.Begin();
  gate.AddRange(Range(10, 20));
  std::atomic<bool> waits = false;
  std::atomic<bool> ended = false;
  bool waited_at_the_end = false;
  std::thread host;
  gate.WaitWhile(
      [&] {
        host = std::thread([&] {
          gate.End();
          waited_at_the_end = waits;
          ended = true;
        });
        while (gate.MaybeInvalidating(Gfn(15))) std::this_thread::yield();
        for (int turn = 0; turn < 5000 && !ended; ++turn) {
          std::this_thread::yield();
        }
        waits = true;
        return !ended;
      },
      absl::Hours(1));
  host.join();
  EXPECT_TRUE(waited_at_the_end);
}

// One page whose frame the host replaces again and again. The fault installs
// the frame that it found, unless it is told to retry. `mapped` stands for the
// SPTE.
//
// Covers: PF-21, PF-25, PF-27
TEST(InvalidationGateTest, NoMappingOfAFrameThatWentAwayIsEverInstalled) {
  InvalidationGate gate;
  std::mutex mmu_lock;               // any mode will do for the protocol
  std::atomic<uint64_t> frame = 1;   // the host's current frame
  std::atomic<uint64_t> mapped = 0;  // 0: nothing
  std::atomic<bool> done = false;
  std::atomic<uint64_t> installed = 0;

  std::vector<std::thread> faults;
  for (int i = 0; i < 2; ++i) {
    faults.emplace_back([&] {
      while (!done.load()) {
        const uint64_t snapshot = gate.snapshot();
        const uint64_t found = frame.load(std::memory_order_relaxed);
        {
          std::unique_lock lock(mmu_lock);
          if (!gate.RetryNeeded(snapshot, Gfn(15))) {
            mapped.store(found, std::memory_order_relaxed);
            installed.fetch_add(1);
          }
        }
        std::this_thread::yield();  // a mutex is not fair
      }
    });
  }
  uint64_t in_progress_mappings = 0;
  uint64_t stale_mappings = 0;
  for (uint64_t next = 2; next < 500; ++next) {
    {
      std::unique_lock lock(mmu_lock);
      gate.Begin();
      gate.AddRange(Range(10, 20));
      mapped.store(0, std::memory_order_relaxed);
    }
    frame.store(next, std::memory_order_relaxed);
    {
      std::unique_lock lock(mmu_lock);
      if (mapped.load(std::memory_order_relaxed) != 0) ++in_progress_mappings;
      gate.End();
    }
    const uint64_t target = installed.load() + 1;
    while (installed.load() < target) std::this_thread::yield();
    std::unique_lock lock(mmu_lock);
    if (mapped.load(std::memory_order_relaxed) != next) ++stale_mappings;
  }
  done = true;
  for (std::thread& fault : faults) fault.join();
  EXPECT_EQ(in_progress_mappings, uint64_t{0});
  EXPECT_EQ(stale_mappings, uint64_t{0});
}

// Covers: SLOT-23
TEST(InvalidationGateTest, PublicationWaitsForTheLastConclusion) {
  InvalidationGate gate;
  gate.Announce();
  gate.Announce();
  std::atomic<bool> waiting = false;
  std::atomic<bool> published = false;
  std::thread publisher([&] {
    waiting = true;
    gate.PublishWhenIdle([&] { published = true; });
  });
  while (!waiting.load()) std::this_thread::yield();
  gate.Conclude();
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(published.load());
    std::this_thread::yield();
  }
  gate.Conclude();
  publisher.join();
  EXPECT_TRUE(published.load());
}

TEST(InvalidationGateDeathTest, EndWithoutBeginIsABug) {
  InvalidationGate gate;
  EXPECT_DEATH(gate.End(), "check failed");
  EXPECT_DEATH(gate.Conclude(), "check failed");
}

}  // namespace
}  // namespace mmu
