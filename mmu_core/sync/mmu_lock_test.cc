#include "mmu_core/sync/mmu_lock.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/lock_metrics.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/litmus.h"
#include "mmu_core/testing/lock_trace.h"

namespace mmu {
namespace {

void AwaitWaiter(const MmuLock& lock) {
  testing::Await("a thread waits for mmu_lock",
                 [&] { return lock.IsContended(); });
}

void LetOthersRun() {
  for (int i = 0; i < 200; ++i) std::this_thread::yield();
}

TEST(MmuLockTest, WriterIsAloneAndReadersSeeWholeWrites) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 5'000;
  MmuLock lock;
  int64_t a = 0;  // not atomic: the lock must order it
  int64_t b = 0;
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        if ((i + t) % 4 == 0) {
          MmuWriteLocked locked(lock, LockOp::kZap, nullptr);
          ++a;
          ++b;
        } else {
          // A fault has a slot of its own; others count in the lock's word.
          MmuReadLocked locked(lock, i % 2 == 0 ? LockOp::kFault : LockOp::kAge,
                               nullptr);
          if (a != b) ++torn;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(a, kThreads * kRounds / 4);
  EXPECT_EQ(b, a);
  EXPECT_FALSE(lock.IsContended());
}

// Two holds of which one writes, with nothing but the lock to order them. TSan
// judges whether it does.
class HandOver {
 public:
  enum Hold { kFault, kReader, kWriter };

  // Runs `test` for each pair of holds.
  static void ForEach(absl::FunctionRef<void(HandOver&)> test) {
    {
      // Registers this thread with RCU, whose list of threads has a mutex.
      MmuLock other;
      MmuReadLocked locked(other, LockOp::kFault);
    }
    for (const Hold first : {kFault, kReader, kWriter}) {
      for (const Hold second : {kFault, kReader, kWriter}) {
        if (first != kWriter && second != kWriter) continue;
        HandOver pair(first, second);
        test(pair);
      }
    }
  }

  // The first hold begins in a thread of its own, which runs `inside` in it and
  // `after` behind it. The second begins when one of them has called Go().
  void Run(absl::FunctionRef<void()> inside, absl::FunctionRef<void()> after) {
    std::thread other([&] {
      Take(first_, inside);
      after();
    });
    for (int i = 0; !go_.load(std::memory_order_relaxed); ++i) {
      if (i > 10'000) std::this_thread::yield();
    }
    Take(second_, [] {});
    other.join();
  }
  void Go() { go_.store(true, std::memory_order_relaxed); }
  Hold first() const { return first_; }
  const MmuLock& lock() const { return lock_; }

 private:
  HandOver(Hold first, Hold second) : first_(first), second_(second) {}

  void Take(Hold how, absl::FunctionRef<void()> inside) {
    if (how == kWriter) {
      MmuWriteLocked locked(lock_, LockOp::kZap);
      inside();
      ++value_;
    } else {
      MmuReadLocked locked(lock_,
                           how == kFault ? LockOp::kFault : LockOp::kAge);
      inside();
      EXPECT_LE(value_, 1);
    }
  }

  const Hold first_;
  const Hold second_;
  MmuLock lock_;
  // Not atomic. TSan remembers few accesses of one word, so no other variable
  // that is waited for may be in it.
  alignas(64) int value_ = 0;
  alignas(64) std::atomic<bool> go_{false};
};

TEST(MmuLockTest, AHoldComesAfterTheHoldBefore) {
  for (int round = 0; round < 50; ++round) {  // TSan does not see each race
    HandOver::ForEach(
        [](HandOver& pair) { pair.Run([] {}, [&pair] { pair.Go(); }); });
  }
}

// The second thread spins at first, and then it sleeps.
TEST(MmuLockTest, AHoldComesAfterTheHoldThatItWaitedFor) {
  for (int round = 0; round < 100; ++round) {
    HandOver::ForEach([round](HandOver& pair) {
      pair.Run(
          [&pair, round] {
            pair.Go();
            while (!pair.lock().IsContended()) {
            }
            if (round % 10 == 0) absl::SleepFor(absl::Milliseconds(1));
          },
          [] {});
    });
  }
}

#ifndef NDEBUG  // needs hooks

// Stops each thread that finds the lock held at `point`, until the holder has
// left. All orders are relaxed, so that only the lock can order the holds.
class OtherStopsUntilLeft {
 public:
  explicit OtherStopsUntilLeft(HookPoint point) {
    point_.store(point, std::memory_order_relaxed);
    stands_.store(false, std::memory_order_relaxed);
    has_left_.store(false, std::memory_order_relaxed);
    hook_fn.store(&AtAnyHook, std::memory_order_relaxed);
  }
  ~OtherStopsUntilLeft() { hook_fn.store(nullptr, std::memory_order_relaxed); }
  static void AwaitOther() { Await(stands_); }
  static void Left() { has_left_.store(true, std::memory_order_relaxed); }

 private:
  static void AtAnyHook(HookPoint point) {
    if (point != point_.load(std::memory_order_relaxed)) return;
    stands_.store(true, std::memory_order_relaxed);
    Await(has_left_);
  }
  static void Await(const std::atomic<bool>& flag) {
    while (!flag.load(std::memory_order_relaxed)) std::this_thread::yield();
  }

  static inline std::atomic<HookPoint> point_;
  alignas(64) static inline std::atomic<bool> stands_;
  alignas(64) static inline std::atomic<bool> has_left_;
};

void HandOverWhileTheOtherStandsAt(HookPoint point) {
  for (int round = 0; round < 20; ++round) {  // TSan does not see each race
    HandOver::ForEach([point](HandOver& pair) {
      // A writer polls for the end of a fault with a slot, and does not queue.
      if (pair.first() == HandOver::kFault) return;
      OtherStopsUntilLeft order(point);
      pair.Run(
          [&] {
            pair.Go();
            order.AwaitOther();
          },
          [&] { order.Left(); });
    });
  }
}

// The second thread finds the lock held, and free when it has queued. It grants
// the lock to itself.
// Covers: LCK-04
TEST(MmuLockTest, Race50AHoldComesAfterTheHoldThatEndsMeanwhile) {
  HandOverWhileTheOtherStandsAt(HookPoint::kFoundHeldToQueue);
}

// The second thread has queued, and is granted the lock when it begins to wait.
// Covers: LCK-04
TEST(MmuLockTest, Race50AHoldComesAfterTheHoldThatEndsBeforeTheWait) {
  HandOverWhileTheOtherStandsAt(HookPoint::kQueuedToAwait);
}

// A reader that queues behind a writer grants the lock to whom it may.
// Covers: LCK-04
TEST(MmuLockTest, AReaderThatQueuesDoesNotLetItselfInBesideAWriter) {
  MmuLock lock;
  testing::Interleaving threads;
  threads.Add("reader", [&] { MmuReadLocked(lock, LockOp::kAge); });
  MmuWriteLocked locked(lock, LockOp::kZap);
  threads.RunTo("reader", HookPoint::kQueuedToAwait);
  EXPECT_TRUE(locked.NeedYield()) << "it is in the queue no more";
  locked.Unlock();
  threads.RunToEnd("reader");
}

#endif

// Of two readers the last lets the writer in, which comes after both.
TEST(MmuLockTest, AWriterComesAfterEachReaderThatItWaitedFor) {
  MmuLock lock;
  alignas(64) int value = 0;  // not atomic
  alignas(64) std::atomic<int> inside{0};
  std::atomic<bool> one_has_left{false};
  const auto read = [&](bool leaves_last) {
    MmuReadLocked locked(lock, LockOp::kAge);
    EXPECT_EQ(value, 0);
    inside.fetch_add(1, std::memory_order_relaxed);
    AwaitWaiter(lock);
    while (leaves_last && !one_has_left.load(std::memory_order_relaxed)) {
      std::this_thread::yield();
    }
  };
  std::thread first([&] {
    read(false);
    one_has_left.store(true, std::memory_order_relaxed);
  });
  std::thread last([&] { read(true); });
  while (inside.load(std::memory_order_relaxed) != 2) {
    std::this_thread::yield();
  }
  {
    MmuWriteLocked locked(lock, LockOp::kZap);
    ++value;
  }
  first.join();
  last.join();
}

// A writer takes the lock after the fault has announced itself, and before the
// fault looks.
// Covers: LCK-04
TEST(MmuLockTest, Race19AFaultThatHasAnnouncedItselfIsSeen) {
  MmuLock lock;
  std::atomic<bool> writer_is_in{false};
  std::atomic<bool> fault_is_in{false};
  std::thread writer;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kFaultToLook || writer.joinable()) return;
      writer = std::thread([&] {
        MmuWriteLocked locked(lock, LockOp::kZap);
        writer_is_in = true;
        testing::Await("the fault queues, or holds the lock beside the writer",
                       [&] { return lock.IsContended() || fault_is_in; });
        EXPECT_FALSE(fault_is_in);
        writer_is_in = false;
      });
      testing::Await("the writer waits for the fault, or holds the lock",
                     [&] { return lock.IsContended() || writer_is_in; });
    });
    MmuReadLocked locked(lock, LockOp::kFault);
    fault_is_in = true;
    EXPECT_FALSE(writer_is_in);
  }
  writer.join();
}

#ifndef MMU_TSAN  // TSan knows no such barrier

// Writers need the heavy barrier only for faults, which hold the lock in read
// mode in a slot of their own. Without such faults, as with shadow pages, an
// uncontended writer does not pay for the barrier. After the first fault it
// does.
TEST(MmuLockTest, WritersPayForABarrierOnlyOnceAFaultHasHadASlot) {
  MmuLock lock;
  testing::LockTrace trace;
  const auto barriers = [&] { return trace.CountOf(HookPoint::kHeavyBarrier); };
  for (int i = 0; i < 3; ++i) MmuWriteLocked(lock, LockOp::kFault);
  { MmuReadLocked other(lock, LockOp::kAge); }
  MmuWriteLocked(lock, LockOp::kZap);
  EXPECT_EQ(barriers(), 0);
  std::thread([&] { MmuReadLocked(lock, LockOp::kFault); }).join();
  MmuWriteLocked(lock, LockOp::kZap);
  EXPECT_EQ(barriers(), 1);
}

#endif

// The first fault meets a writer: each announces itself and looks for the
// other, once per lock. On x86 the test passes with relaxed orders as well,
// because the writer's exchange and the operation that raises slots_used_ are
// full barriers there. The test is for other machines, and for the compiler.
// vm/race_faults_test.cc checks that a writer that needs the barrier uses it.
TEST(MmuLockTest, Race19TheFirstFaultAndAWriterAreNeverTogether) {
  constexpr int kRounds = 3'000;
  alignas(64) static std::atomic<int> started;
  alignas(64) static std::atomic<int> finished;
  std::unique_ptr<MmuLock> lock;  // ordered by `started` and `finished`
  std::atomic<bool> fault_is_in{false};
  std::atomic<bool> writer_is_in{false};
  std::atomic<int> together{0};
  const auto stay = [&](std::atomic<bool>& mine, std::atomic<bool>& other) {
    mine = true;
    for (int i = 0; i < 20; ++i) together += other.load();
    mine = false;
  };
  std::thread faulter([&] {
    for (int round = 1; round <= kRounds; ++round) {
      testing::AwaitChange(started, round - 1);
      {
        MmuReadLocked locked(*lock, LockOp::kFault);
        stay(fault_is_in, writer_is_in);
      }
      finished.store(round, std::memory_order_release);
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    lock = std::make_unique<MmuLock>();
    started.store(round, std::memory_order_seq_cst);
    testing::DelayInRound(round);
    {
      MmuWriteLocked locked(*lock, LockOp::kZap);
      stay(writer_is_in, fault_is_in);
    }
    testing::AwaitChange(finished, round - 1);
  }
  faulter.join();
  EXPECT_EQ(together, 0);
}

TEST(MmuLockTest, ReadersShare) {
  MmuLock lock;
  MmuReadLocked mine(lock, LockOp::kFault);
  std::thread([&lock] { MmuReadLocked(lock, LockOp::kAge); }).join();
  EXPECT_TRUE(mine.held());
  EXPECT_EQ(lock.Snapshot().at(LockMode::kRead, LockOp::kAge).contended, 0u);
}

// Covers: LCK-04
TEST(MmuLockTest, HolderOfEitherModeSeesWhetherSomebodyWaits) {
  MmuLock lock;
  EXPECT_FALSE(lock.IsContended());
  {
    MmuReadLocked locked(lock, LockOp::kSplit);
    EXPECT_FALSE(locked.NeedYield());
    std::thread writer([&] { MmuWriteLocked(lock, LockOp::kZap); });
    AwaitWaiter(lock);
    EXPECT_TRUE(locked.NeedYield());
    locked.Unlock();
    writer.join();
  }
  EXPECT_FALSE(lock.IsContended());
  {
    MmuWriteLocked locked(lock, LockOp::kSplit);
    EXPECT_FALSE(locked.NeedYield());
    std::thread reader([&] { MmuReadLocked(lock, LockOp::kFault); });
    AwaitWaiter(lock);
    EXPECT_TRUE(locked.NeedYield());
    locked.Unlock();
    reader.join();
  }
  EXPECT_FALSE(lock.IsContended());
}

// The test counts acquisitions, not time: once the writer is queued, each
// reader can at most finish the acquisition that it has begun.
// Covers: LCK-04
TEST(MmuLockTest, WriterIsNotStarvedBySixtyFourReaders) {
  constexpr int kReaders = 64;
  constexpr int kRounds = 10;
  MmuLock lock;
  std::atomic<bool> stop{false};
  std::atomic<int64_t> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        {
          MmuReadLocked locked(lock, LockOp::kFault);
          reads.fetch_add(1, std::memory_order_relaxed);
        }
        std::this_thread::yield();  // more threads than processors
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    const int64_t before = reads;
    while (reads < before + kReaders) std::this_thread::yield();

    int64_t reads_when_queued = 0;
    int64_t reads_when_granted = 0;
    MmuReadLocked mine(lock, LockOp::kSplit);
    std::thread writer([&] {
      MmuWriteLocked locked(lock, LockOp::kZap);
      reads_when_granted = reads;
    });
    AwaitWaiter(lock);
    reads_when_queued = reads;
    LetOthersRun();
    mine.Unlock();
    writer.join();
    EXPECT_LE(reads_when_granted - reads_when_queued, kReaders);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

TEST(MmuLockTest, ReaderIsServedBeforeWritersThatCameLater) {
  constexpr int kWriters = 4;
  MmuLock lock;
  std::atomic<int> writes{0};
  int writes_when_granted = -1;
  MmuWriteLocked mine(lock, LockOp::kZap);
  std::thread reader([&] {
    MmuReadLocked locked(lock, LockOp::kFault);
    writes_when_granted = writes;
  });
  AwaitWaiter(lock);
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      MmuWriteLocked locked(lock, LockOp::kClear);
      ++writes;
    });
  }
  LetOthersRun();
  mine.Unlock();
  reader.join();
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(writes_when_granted, 0);
  EXPECT_EQ(writes, kWriters);
}

// Covers: LCK-02, LCK-04
TEST(MmuLockTest, YieldLetsAWaitingWriterInAndKeepsTheMode) {
  MmuLock lock;
  bool written = false;
  MmuReadLocked locked(lock, LockOp::kSplit);
  std::thread writer([&] {
    MmuWriteLocked w(lock, LockOp::kZap);
    written = true;
  });
  AwaitWaiter(lock);
  EXPECT_FALSE(written);
  locked.Yield();
  EXPECT_TRUE(written);
  EXPECT_FALSE(locked.NeedYield());
  writer.join();
  // Still in read mode: another reader does not have to wait.
  std::thread([&] { MmuReadLocked(lock, LockOp::kAge); }).join();
  EXPECT_EQ(lock.Snapshot().at(LockMode::kRead, LockOp::kAge).contended, 0u);
}

// Covers: LCK-02
TEST(MmuLockTest, YieldOfAWriterLetsReadersInAndKeepsTheMode) {
  MmuLock lock;
  std::atomic<bool> read{false};
  MmuWriteLocked locked(lock, LockOp::kZap);
  std::thread reader([&] {
    MmuReadLocked r(lock, LockOp::kFault);
    read = true;
  });
  AwaitWaiter(lock);
  EXPECT_FALSE(read);
  locked.Yield();
  EXPECT_TRUE(read);
  reader.join();
  // Still in write mode: a reader has to wait.
  std::thread second([&] { MmuReadLocked(lock, LockOp::kAge); });
  AwaitWaiter(lock);
  locked.Unlock();
  second.join();
  EXPECT_EQ(lock.Snapshot().at(LockMode::kRead, LockOp::kAge).contended, 1u);
}

TEST(MmuLockTest, UnlockedWitnessLetsWritersInUntilItRelocks) {
  MmuLock lock;
  MmuReadLocked locked(lock, LockOp::kSplit);
  locked.Unlock();
  EXPECT_FALSE(locked.held());
  { MmuWriteLocked other(lock, LockOp::kZap); }
  locked.Relock();
  EXPECT_TRUE(locked.held());
}

TEST(MmuLockTest, CountersAreExact) {
  MmuLock lock;
  for (int i = 0; i < 3; ++i) MmuReadLocked(lock, LockOp::kEnable);
  {
    MmuWriteLocked locked(lock, LockOp::kClear);
    locked.Yield();
    locked.Yield();
  }
  {
    MmuWriteLocked locked(lock, LockOp::kZap);
    std::thread reader([&] { MmuReadLocked(lock, LockOp::kRecover); });
    AwaitWaiter(lock);
    locked.Unlock();
    reader.join();
  }
  const LockMetrics metrics = lock.Snapshot();

  const LockOpMetrics& enable = metrics.at(LockMode::kRead, LockOp::kEnable);
  EXPECT_EQ(enable.acquisitions, 3u);
  EXPECT_EQ(enable.contended, 0u);
  EXPECT_EQ(enable.wait.count, 0u);
  EXPECT_EQ(enable.hold.count, 3u);

  const LockOpMetrics& clear = metrics.at(LockMode::kWrite, LockOp::kClear);
  EXPECT_EQ(clear.acquisitions, 3u);  // one, and one after each yield
  EXPECT_EQ(clear.yields, 2u);
  EXPECT_EQ(clear.hold.count, 3u);

  const LockOpMetrics& recover = metrics.at(LockMode::kRead, LockOp::kRecover);
  EXPECT_EQ(recover.acquisitions, 1u);
  EXPECT_EQ(recover.contended, 1u);
  EXPECT_EQ(recover.wait.count, 1u);
  EXPECT_GT(recover.wait.sum_nanos, 0);
  EXPECT_EQ(recover.hold.count, 1u);
}

TEST(MmuLockTest, HoldTimesOfFaultsAreSampledAndStandForAll) {
  constexpr uint64_t kFaults = 100 * kFaultHoldSampling;
  MmuLock lock;
  for (uint64_t i = 0; i < kFaults; ++i) {
    MmuReadLocked(lock, LockOp::kFault);
  }
  const LockMetrics metrics = lock.Snapshot();
  const LockOpMetrics& fault = metrics.at(LockMode::kRead, LockOp::kFault);
  EXPECT_EQ(fault.acquisitions, kFaults);
  EXPECT_EQ(fault.hold.count, kFaults);
}

TEST(MmuLockTest, ContendedFaultsAreAllMeasured) {
  MmuLock lock;
  for (int i = 0; i < 3; ++i) {
    MmuWriteLocked locked(lock, LockOp::kZap);
    std::thread reader([&] { MmuReadLocked(lock, LockOp::kFault); });
    AwaitWaiter(lock);
    locked.Unlock();
    reader.join();
  }
  const LockMetrics metrics = lock.Snapshot();
  const LockOpMetrics& fault = metrics.at(LockMode::kRead, LockOp::kFault);
  EXPECT_EQ(fault.contended, 3u);
  EXPECT_EQ(fault.wait.count, 3u);
  EXPECT_EQ(fault.hold.count, 3u);
}

TEST(MmuLockTest, CostGetsWaitsAndTheLongestHold) {
  MmuLock lock;
  MmuCost cost;
  { MmuReadLocked locked(lock, LockOp::kFault, &cost); }
  EXPECT_EQ(cost.lock_wait, absl::ZeroDuration());
  EXPECT_GT(cost.max_lock_hold, absl::ZeroDuration());

  MmuCost waiting_cost;
  MmuWriteLocked locked(lock, LockOp::kZap, &cost);
  std::thread reader(
      [&] { MmuReadLocked(lock, LockOp::kFault, &waiting_cost); });
  AwaitWaiter(lock);
  locked.Unlock();
  reader.join();
  EXPECT_GT(waiting_cost.lock_wait, absl::ZeroDuration());
  EXPECT_EQ(cost.lock_wait, absl::ZeroDuration());
}

#ifndef NDEBUG
// Not analysed, because the analysis would find the mistake at compile time.
void AskForMore() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  MmuLock lock;
  MmuReadLocked read(lock, LockOp::kFault);
  MmuWriteLocked write(lock, LockOp::kFault);
}

// Covers: LCK-02
TEST(MmuLockDeathTest, ReadHolderThatAsksForMoreDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(AskForMore(), "held_lock");
}
#endif

}  // namespace
}  // namespace mmu
