#include "mmu_core/shadow/indirect_page_count.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include "gtest/gtest.h"

namespace mmu {
namespace {

// Like the litmus test in sync/asymmetric_barrier_test.cc: a delay that changes
// from round to round makes the two threads meet at every possible distance.
// Covers: LCK-06
TEST(IndirectPageCountTest, Race32EitherTheWriterSeesThePageOrThePageTheWrite) {
  constexpr int kRounds = 40'000;
  alignas(64) static IndirectPageCount pages;
  alignas(64) static std::atomic<uint64_t> guest_entry;
  alignas(64) static std::atomic<int> started;
  alignas(64) static std::atomic<int> finished;
  bool writer_saw = false;  // ordered by `finished`

  const auto await = [](const std::atomic<int>& what, int value) {
    for (int i = 0; what.load(std::memory_order_acquire) != value; ++i) {
      if (i > 10'000) std::this_thread::yield();
    }
  };
  std::thread writer([&] {
    for (int round = 1; round <= kRounds; ++round) {
      await(started, round);
      guest_entry.store(1, std::memory_order_relaxed);
      writer_saw = pages.Any();
      finished.store(round, std::memory_order_release);
    }
  });
  int both_missed = 0;
  for (int round = 1; round <= kRounds; ++round) {
    guest_entry.store(0, std::memory_order_relaxed);
    started.store(round, std::memory_order_seq_cst);
    for (int i = 0; i < round * 7 % 512; ++i) {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    pages.Add();
    const bool page_saw = guest_entry.load(std::memory_order_relaxed) != 0;
    await(finished, round);
    if (!page_saw && !writer_saw) ++both_missed;
    pages.Remove();
  }
  writer.join();
  EXPECT_EQ(both_missed, 0);
}

}  // namespace
}  // namespace mmu
