#include "mmu_core/stats/sharded_counter.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/thread_index.h"

namespace mmu {
namespace {

TEST(ShardedCounterTest, SumIsExactWithMoreThreadsThanShards) {
  constexpr int kThreads = 2 * kCounterShards + 1;
  constexpr int kAdds = 2'000;
  ShardedCounter counter;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&counter] {
      for (int i = 0; i < kAdds; ++i) counter.Add();
      counter.Add(7);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.Sum(), uint64_t{kThreads} * (kAdds + 7));
}

TEST(ShardedCounterTest, CountersOfOneSetAreIndependent) {
  ShardedCounters<3> counters;
  counters.Add(0);
  counters.Add(2, 5);
  EXPECT_EQ(counters.Sum(0), 1u);
  EXPECT_EQ(counters.Sum(1), 0u);
  EXPECT_EQ(counters.Sum(2), 5u);
}

TEST(ThreadIndexTest, ANumberIsUsedAgainAfterItsThreadHasEnded) {
  uint32_t before = 0;
  uint32_t after = 0;
  std::thread([&before] { before = ThreadIndex(); }).join();
  std::thread([&after] { after = ThreadIndex(); }).join();
  EXPECT_EQ(before, after);
}

TEST(ThreadIndexTest, AThreadThatHasGivenItsNumberBackStillCounts) {
  ShardedCounter counter;
  uint32_t late = 0;
  std::thread([&] {
    // This object exists before the thread takes its number, so its destructor
    // runs after the number was given back.
    struct Late {
      ~Late() {
        *index = ThreadIndex();
        counter->Add();
      }
      ShardedCounter* counter;
      uint32_t* index;
    };
    static thread_local Late at_end{&counter, &late};
    static_cast<void>(at_end);
    counter.Add();
  }).join();
  EXPECT_EQ(counter.Sum(), 2u);
  EXPECT_EQ(late, kNoThreadIndex);
}

TEST(ThreadIndexTest, EachThreadKeepsANumberOfItsOwn) {
  const uint32_t mine = ThreadIndex();
  uint32_t first = mine;
  uint32_t second = mine;
  std::thread([&first, &second] {
    first = ThreadIndex();
    second = ThreadIndex();
  }).join();
  EXPECT_EQ(first, second);
  EXPECT_NE(first, mine);
  EXPECT_EQ(ThreadIndex(), mine);
}

}  // namespace
}  // namespace mmu
