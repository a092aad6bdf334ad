#include "mmu_core/rmap/pte_list_pool.h"

#include <atomic>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;

std::set<PteListDesc*> Members(const PteListPool::Chain& chain) {
  std::set<PteListDesc*> members;
  for (PteListDesc* desc = chain.head; desc != nullptr; desc = desc->next) {
    EXPECT_TRUE(members.insert(desc).second) << "twice in one chain";
  }
  EXPECT_EQ(members.size(), static_cast<size_t>(chain.count));
  return members;
}

TEST(PteListPoolTest, DescriptorsAreDistinctAndEachIsTwoCacheLines) {
  PteListPool pool;
  // The chain is larger than one block.
  const PteListPool::Chain chain = pool.Take(5000);
  ASSERT_EQ(chain.count, 5000);
  const std::set<PteListDesc*> members = Members(chain);
  EXPECT_EQ(members.size(), 5000u);
  for (PteListDesc* desc : members) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(desc) % 128, 0u);
  }
  const PteListPool::Stats stats = pool.Snapshot();
  EXPECT_EQ(stats.descs_out, 5000u);
  EXPECT_GE(stats.bytes, 5000u * 128);
  EXPECT_LE(stats.bytes, 5000u * 128 + (256u << 10) + 3 * 128);
  PteListPool::Return(chain.head);
  EXPECT_EQ(pool.Snapshot().descs_out, 0u);
  EXPECT_EQ(pool.Snapshot().descs_out_peak, 5000u);
}

TEST(PteListPoolTest, WhatComesBackIsWhatGoesOutNext) {
  PteListPool pool;
  const PteListPool::Chain all = pool.Take(2047);
  const std::set<PteListDesc*> members = Members(all);
  const uint64_t bytes = pool.Snapshot().bytes;
  PteListPool::Return(all.head);
  for (int i = 0; i < 10; ++i) {
    const PteListPool::Chain again = pool.Take(2047);
    EXPECT_EQ(Members(again), members);
    PteListPool::Return(again.head);
  }
  EXPECT_EQ(pool.Snapshot().bytes, bytes) << "nothing new from the kernel";
  PteListPool::Return(nullptr);
}

TEST(PteListPoolTest, ALimitIsKeptAndCanBeMoved) {
  PteListPool pool(3);
  const PteListPool::Chain two = pool.Take(2);
  EXPECT_EQ(two.count, 2);
  const PteListPool::Chain one = pool.Take(2);
  EXPECT_EQ(one.count, 1) << "the third is the last";
  EXPECT_EQ(pool.Take(1).count, 0);
  EXPECT_EQ(pool.Take(1).head, nullptr);
  PteListPool::Return(two.head);
  const PteListPool::Chain again = pool.Take(5);
  EXPECT_EQ(again.count, 2) << "what came back may go out again";
  pool.SetMaxDescs(0);
  const PteListPool::Chain many = pool.Take(100);
  EXPECT_EQ(many.count, 100) << "0 is no limit";
  PteListPool::Return(one.head);
  PteListPool::Return(again.head);
  PteListPool::Return(many.head);
}

TEST(PteListPoolDeathTest, APoolIsNotDestroyedBeforeItsDescriptorsAreBack) {
  EXPECT_DEATH(
      {
        PteListPool pool;
        pool.Take(1);
      },
      "out_");
}

// A thread has read the top and is about to push. Before that, another thread
// takes the top and returns it.
TEST(PteListPoolTest, Race29TopThatComesBackIsStillTheTop) {
  PteListPool pool;
  const PteListPool::Chain rest = pool.Take(2045);  // all but two of the block
  const PteListPool::Chain a = pool.Take(1);
  const PteListPool::Chain x = pool.Take(1);
  PteListPool::Return(x.head);
  Interleaving threads;
  threads.Add("return", [&] { PteListPool::Return(a.head); });
  threads.RunTo("return", HookPoint::kReturnToPush);
  ASSERT_EQ(a.head->next, x.head);
  const PteListPool::Chain taken = pool.Take(1);
  ASSERT_EQ(taken.head, x.head);
  PteListPool::Return(taken.head);
  threads.RunToEnd("return");
  const PteListPool::Chain both = pool.Take(2);
  EXPECT_EQ(Members(both), (std::set<PteListDesc*>{a.head, x.head}));
  EXPECT_EQ(pool.Snapshot().bytes, 256u << 10) << "none is lost";
  PteListPool::Return(both.head);
  PteListPool::Return(rest.head);
}

// A thread has read the top and is about to push. Another thread takes that top
// and keeps it. The pushed descriptor must not lead to it.
TEST(PteListPoolTest, Race29TopThatIsTakenIsNotPushedAgain) {
  PteListPool pool;
  const PteListPool::Chain rest = pool.Take(2045);
  const PteListPool::Chain a = pool.Take(1);
  const PteListPool::Chain x = pool.Take(1);
  PteListPool::Return(x.head);
  Interleaving threads;
  threads.Add("return", [&] { PteListPool::Return(a.head); });
  threads.RunTo("return", HookPoint::kReturnToPush);
  const PteListPool::Chain taken = pool.Take(1);
  ASSERT_EQ(taken.head, x.head);
  threads.RunToEnd("return");
  EXPECT_EQ(a.head->next, nullptr);
  const PteListPool::Chain other = pool.Take(1);
  EXPECT_EQ(other.head, a.head);
  const PteListPool::Chain fresh = pool.Take(1);
  EXPECT_NE(fresh.head, x.head) << "somebody has it";
  for (const auto& chain : {rest, taken, other, fresh}) {
    PteListPool::Return(chain.head);
  }
}

// Each owner overwrites its descriptors, so a descriptor with two owners shows.
// TSan reports an owner that continues after its return.
TEST(PteListPoolTest, ManyThreadsNeverOwnOneDescriptorAtOnce) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 4000;
  PteListPool pool;
  std::atomic<int> stolen{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const PteListPool::Chain chain = pool.Take(1 + (round + t) % 5);
        for (PteListDesc* d = chain.head; d != nullptr; d = d->next) {
          d->count = static_cast<uint32_t>(t);
          d->tail_count = static_cast<uint32_t>(round);
        }
        for (PteListDesc* d = chain.head; d != nullptr; d = d->next) {
          if (d->count != static_cast<uint32_t>(t) ||
              d->tail_count != static_cast<uint32_t>(round)) {
            stolen.fetch_add(1);
          }
        }
        PteListPool::Return(chain.head);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stolen.load(), 0);
  EXPECT_EQ(pool.Snapshot().descs_out, 0u);
  EXPECT_LE(pool.Snapshot().descs_out_peak, kThreads * 5u);
  EXPECT_EQ(pool.Snapshot().bytes, 256u << 10);
}

}  // namespace
}  // namespace mmu
