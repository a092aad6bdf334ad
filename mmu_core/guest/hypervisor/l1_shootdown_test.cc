#include "mmu_core/guest/hypervisor/l1_shootdown.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/testing/litmus.h"

namespace mmu {
namespace {

TEST(L1ShootdownTest, AProcessorThatRunsTheGuestIsWaitedFor) {
  L1Shootdown shootdown(2, 2);
  shootdown.Enter(1, 0);
  EXPECT_FALSE(shootdown.IsBehind(1, 0));
  const uint64_t generation = shootdown.Ask(0);
  EXPECT_TRUE(shootdown.IsBehind(1, 0));
  EXPECT_FALSE(shootdown.IsDone(0, 0, generation));
  shootdown.Invalidated(1, 0, generation);
  EXPECT_FALSE(shootdown.IsBehind(1, 0));
  EXPECT_TRUE(shootdown.IsDone(0, 0, generation));
}

TEST(L1ShootdownTest, OneThatDoesNotRunItIsAskedAndNotWaitedFor) {
  L1Shootdown shootdown(3, 2);
  shootdown.Enter(1, 1);  // another guest; processor 2 is in L1
  const uint64_t generation = shootdown.Ask(0);
  EXPECT_TRUE(shootdown.IsDone(0, 0, generation));
  EXPECT_TRUE(shootdown.IsBehind(1, 0));
  EXPECT_TRUE(shootdown.IsBehind(2, 0));
  EXPECT_FALSE(shootdown.IsBehind(1, 1)) << "a guest of its own";
}

TEST(L1ShootdownTest, AnExitEndsTheWaitAndNotTheDebt) {
  L1Shootdown shootdown(2, 1);
  shootdown.Enter(1, 0);
  const uint64_t generation = shootdown.Ask(0);
  shootdown.Leave(1);
  EXPECT_TRUE(shootdown.IsDone(0, 0, generation));
  EXPECT_TRUE(shootdown.IsBehind(1, 0));
}

TEST(L1ShootdownTest, AnOlderInvalidationIsNotEnough) {
  L1Shootdown shootdown(2, 1);
  shootdown.Enter(1, 0);
  const uint64_t first = shootdown.Ask(0);
  const uint64_t second = shootdown.Ask(0);
  shootdown.Invalidated(1, 0, first);
  EXPECT_TRUE(shootdown.IsDone(0, 0, first));
  EXPECT_FALSE(shootdown.IsDone(0, 0, second));
  EXPECT_TRUE(shootdown.IsBehind(1, 0));
}

TEST(L1ShootdownTest, TheInitiatorInvalidatesToo) {
  L1Shootdown shootdown(1, 1);
  const uint64_t generation = shootdown.Ask(0);
  EXPECT_TRUE(shootdown.IsDone(0, 0, generation));
  EXPECT_TRUE(shootdown.IsBehind(0, 0));
}

// A processor enters the guest while another one asks: it is waited for, or it
// finds that it is behind. Neither would let it run with old translations.
TEST(L1ShootdownTest, AnEntryIsWaitedForOrInvalidates) {
  constexpr int kRounds = 20'000;
  L1Shootdown shootdown(2, 1);
  std::atomic<int> started{0};
  std::atomic<int> entered{0};
  bool waited_for = true;
  bool is_behind = true;
  std::thread enters([&] {
    for (int round = 1; round <= kRounds; ++round) {
      testing::AwaitChange(started, round - 1);
      testing::DelayInRound(round);
      shootdown.Enter(1, 0);
      is_behind = shootdown.IsBehind(1, 0);
      entered.store(round, std::memory_order_release);
    }
  });
  int wrong = 0;
  for (int round = 1; round <= kRounds; ++round) {
    started.store(round, std::memory_order_release);
    testing::DelayInRound(round * 3);
    const uint64_t generation = shootdown.Ask(0);
    waited_for = !shootdown.IsDone(0, 0, generation);
    testing::AwaitChange(entered, round - 1);
    if (!waited_for && !is_behind) ++wrong;
    shootdown.Leave(1);
    shootdown.Invalidated(1, 0, shootdown.Generation(0));
  }
  enters.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace mmu
