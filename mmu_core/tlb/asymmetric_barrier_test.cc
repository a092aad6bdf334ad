#include "mmu_core/tlb/asymmetric_barrier.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace mmu {
namespace {

// The store-buffer litmus: each thread stores to its own variable and then
// loads the other's. Without barriers both may load 0, and do so within a few
// thousand rounds.
// Covers: TLB-11
TEST(AsymmetricBarrierTest, TwoThreadsNeverBothMissTheOthersStore) {
  constexpr int kRounds = 20'000;
  alignas(64) static std::atomic<int> x;
  alignas(64) static std::atomic<int> y;
  alignas(64) static std::atomic<int> round;
  alignas(64) static std::atomic<int> finished;
  x = y = round = finished = 0;
  static int light_saw = 0;

  const auto wait_for = [](const std::atomic<int>& what, int value) {
    for (int i = 0; what.load(std::memory_order_acquire) != value; ++i) {
      if (i > 1'000) std::this_thread::yield();
    }
  };
  std::thread light([&] {
    for (int r = 1; r <= kRounds; ++r) {
      wait_for(round, r);
      x.store(1, kBarrierOrder);
      LightBarrier();
      light_saw = y.load(kBarrierOrder);
      finished.store(r, std::memory_order_release);
    }
  });
  int both_missed = 0;
  for (int r = 1; r <= kRounds; ++r) {
    x.store(0, std::memory_order_relaxed);
    y.store(0, std::memory_order_relaxed);
    round.store(r, std::memory_order_release);
    y.store(1, kBarrierOrder);
    HeavyBarrier();
    const int heavy_saw = x.load(kBarrierOrder);
    wait_for(finished, r);
    if (heavy_saw == 0 && light_saw == 0) ++both_missed;
  }
  light.join();
  EXPECT_EQ(both_missed, 0);
}

}  // namespace
}  // namespace mmu
