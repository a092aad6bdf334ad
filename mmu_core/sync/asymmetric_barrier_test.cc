#include "mmu_core/sync/asymmetric_barrier.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/testing/litmus.h"
#include "mmu_core/testing/rounds.h"

namespace mmu {
namespace {

using ::mmu::testing::AwaitChange;
using ::mmu::testing::DelayInRound;
using ::mmu::testing::Rounds;

// The store-buffer litmus: each thread stores to its own variable and then
// loads the other's; without barriers both may load the old value. A delay that
// changes from round to round makes the two meet at every possible distance.
// Covers: TLB-11
TEST(AsymmetricBarrierTest, TwoThreadsNeverBothMissTheOthersStore) {
  constexpr int kNoMore = -1;
  alignas(64) static std::atomic<int> x;
  alignas(64) static std::atomic<int> y;
  alignas(64) static std::atomic<int> started;
  alignas(64) static std::atomic<int> finished;
  int light_saw = 0;  // ordered by `finished`

  std::thread light([&] {
    for (int round = 0; (round = AwaitChange(started, round)) != kNoMore;) {
      x.store(1, kBarrierOrder);
      LightBarrier();
      light_saw = y.load(kBarrierOrder);
      finished.store(round, std::memory_order_release);
    }
  });
  int both_missed = 0;
  Rounds rounds(10'000);
  while (rounds.Next()) {
    const int round = rounds.done();
    x.store(0, std::memory_order_relaxed);
    y.store(0, std::memory_order_relaxed);
    started.store(round, std::memory_order_seq_cst);
    DelayInRound(round);
    y.store(1, kBarrierOrder);
    HeavyBarrier();
    const int heavy_saw = x.load(kBarrierOrder);
    AwaitChange(finished, round - 1);
    if (heavy_saw == 0 && light_saw == 0) ++both_missed;
  }
  started.store(kNoMore, std::memory_order_release);
  light.join();
  EXPECT_EQ(both_missed, 0);
}

}  // namespace
}  // namespace mmu
