#include "mmu_core/mmu/yield_point.h"

#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

using ::mmu::testing::Contender;
using ::testing::ElementsAre;

// Stands in for a lock witness: the test sets whether it is contended, and it
// records the order of its yields, unlocks and relocks.
class FakeLock {
 public:
  explicit FakeLock(RemoteTlb& tlb) : tlb_(tlb) {}

  bool NeedYield() const { return contended; }
  void CountWork(int64_t entries) { work_ += entries; }
  int64_t work() const { return work_; }
  // The time of a hold that has just begun.
  int64_t held_since() const { return std::numeric_limits<int64_t>::max() / 2; }
  void Yield() {
    work_ = 0;
    Note("yield");
    if (!held_) Note("not held");
  }
  void Unlock() {
    Note("unlock");
    held_ = false;
  }
  void Relock() {
    Note("relock");
    held_ = true;
  }

  bool contended = true;
  std::vector<std::string> events;

 private:
  void Note(std::string what) {
    if (InRcuReadSection()) what += " in rcu";
    const uint64_t flushes = tlb_.Snapshot().remote_tlb_flush_requests;
    if (flushes != 0) what += " after " + std::to_string(flushes) + " flush";
    events.push_back(std::move(what));
  }

  RemoteTlb& tlb_;
  bool held_ = true;
  int64_t work_ = 0;
};

// A root with one table of 4K entries below it.
class YieldPointTest : public ::testing::Test {
 protected:
  YieldPointTest() {
    chain_ = pool_.Take(4);
    ShadowPage* page = chain_.head;
    for (PageTable*& table : tables_) {
      table = page->table;
      table->FillUnpublished(Spte::Initial());
      page = page->next_free;
    }
    for (int i = 0; i < 3; ++i) {
      tables_[i]->entries[0].Store(SpteFormat::Ept().MakeTable(
          reinterpret_cast<uint64_t>(tables_[i + 1])));
    }
  }
  ~YieldPointTest() override { pool_.Return(chain_.head); }

  TdpCursor Walk(uint64_t pages) {
    RcuReadGuard rcu;  // the walk goes on in that of its YieldPoint
    return TdpCursor(tables_[0], Level::k512G, GfnRange::Of(Gfn(0), pages),
                     Level::k4K);
  }

  TablePool pool_;
  TablePool::Chain chain_;
  PageTable* tables_[4];
  RemoteTlb tlb_;
};

// Covers: TDP-20
TEST_F(YieldPointTest, UnderPermanentContentionEachStepIsMadeOnce) {
  FakeLock lock(tlb_);
  YieldPoint<FakeLock> yield(lock);
  std::map<uint64_t, int> worked_on;
  int yields = 0;
  for (TdpCursor c = Walk(512); c.Valid(); c.Next()) {
    if (yield.MaybeYield(c, nullptr, nullptr)) {
      ++yields;
      ASSERT_LE(yields, 511);
      continue;
    }
    if (c.level() == Level::k4K) ++worked_on[c.gfn().value()];
  }
  EXPECT_EQ(yields, 511) << "one before each entry but the first";
  EXPECT_EQ(worked_on.size(), 512u);
  for (const auto& [gfn, times] : worked_on) EXPECT_EQ(times, 1) << gfn;
}

// Covers: TDP-20
TEST_F(YieldPointTest, WithoutContentionAShortWalkKeepsTheLock) {
  FakeLock lock(tlb_);
  lock.contended = false;
  YieldPoint<FakeLock> yield(lock);
  for (TdpCursor c = Walk(512); c.Valid(); c.Next()) {
    EXPECT_FALSE(yield.MaybeYield(c, nullptr, nullptr));
  }
  EXPECT_THAT(lock.events, ElementsAre());
}

TEST_F(YieldPointTest, WithoutContentionALongHoldEndsAllTheSame) {
  FakeLock lock(tlb_);
  lock.contended = false;
  YieldPoint<FakeLock> yield(lock, {.entries = 100});
  std::vector<int> holds;
  int steps = 0;
  for (TdpCursor c = Walk(400); c.Valid(); c.Next()) {
    ++steps;
    if (!yield.MaybeYield(c, nullptr, nullptr)) continue;
    holds.push_back(steps);
    steps = 0;
  }
  // Each hold includes the way down from the root.
  EXPECT_THAT(holds, ElementsAre(100, 100, 100, 100));
}

// Covers: TDP-20
TEST_F(YieldPointTest, WorkThatTheWalkCountsItselfShortensTheHold) {
  FakeLock lock(tlb_);
  lock.contended = false;
  YieldPoint<FakeLock> yield(lock, {.entries = 1000});
  int entries = 0;
  TdpCursor c = Walk(512);
  while (c.Valid() && !yield.MaybeYield(c, nullptr, nullptr)) {
    if (c.level() == Level::k4K) {
      lock.CountWork(300);
      ++entries;
    }
    c.Next();
  }
  EXPECT_TRUE(c.yielded());
  EXPECT_EQ(entries, 4);
}

// Covers: TDP-21
TEST_F(YieldPointTest, AYieldFlushesThenLeavesRcuThenLetsGoOfTheLock) {
  FakeLock lock(tlb_);
  TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kZap);
  batch.Add(GfnRange::Of(Gfn(0), 1));
  MmuCost cost;
  YieldPoint<FakeLock> yield(lock);
  TdpCursor c = Walk(8);
  while (!c.MayYield()) c.Next();
  ASSERT_TRUE(InRcuReadSection());
  ASSERT_TRUE(yield.MaybeYield(c, &batch, &cost));
  EXPECT_THAT(lock.events, ElementsAre("yield after 1 flush"))
      << "outside of the RCU section";
  EXPECT_TRUE(InRcuReadSection()) << "and in one again";
  EXPECT_TRUE(c.yielded());
  EXPECT_EQ(cost.tlb_flush_count, 1);
}

// Covers: TDP-21
TEST_F(YieldPointTest, TheFlushOfAYieldIsInsideTheRcuSectionItEnds) {
  // A vCPU inside an access keeps the flush waiting.
  VcpuGate gate;
  tlb_.AddVcpu(&gate);
  gate.EnterGuest();
  ASSERT_EQ(gate.BeginAccess(), 0u);

  std::atomic<bool> yielded{false}, done{false};
  std::thread walker([&] {
    FakeLock lock(tlb_);
    TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kZap);
    batch.Add(GfnRange::Of(Gfn(0), 1));
    YieldPoint<FakeLock> yield(lock);
    TdpCursor c = Walk(8);
    while (!c.MayYield()) c.Next();
    yielded.store(yield.MaybeYield(c, &batch, nullptr));
    done.store(true);
  });
  while (gate.pending_requests() == 0 && !done.load()) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(done.load()) << "it did not wait for the vCPU";

  // A grace period that begins now cannot end before the flush. So the tables
  // that a vCPU may still use are not freed.
  std::atomic<bool> grace_period_over{false};
  std::thread freer([&] {
    RcuSynchronize();
    grace_period_over.store(true);
  });
  const int64_t begin = MonotonicNanos();
  while (MonotonicNanos() - begin < 20'000'000) {
    if (grace_period_over.load()) break;
    std::this_thread::yield();
  }
  EXPECT_FALSE(grace_period_over.load());
  EXPECT_FALSE(yielded.load());
  gate.EndAccess();
  walker.join();
  freer.join();
  EXPECT_TRUE(yielded.load());
  gate.ExitGuest();
  tlb_.RemoveVcpu(&gate);
}

// Covers: TDP-22, TLB-09
TEST_F(YieldPointTest, AfterAYieldNothingIsOwedAndTheEntryIsMetAgain) {
  FakeLock lock(tlb_);
  TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kZap);
  YieldPoint<FakeLock> yield(lock);
  std::vector<uint64_t> worked_on;
  for (TdpCursor c = Walk(4); c.Valid(); c.Next()) {
    if (yield.MaybeYield(c, &batch, nullptr)) {
      EXPECT_FALSE(batch.pending());
      continue;
    }
    if (c.level() != Level::k4K) continue;
    worked_on.push_back(c.gfn().value());
    // Only the first entry needs a flush; later yields find none pending.
    if (c.gfn() == Gfn(0)) batch.Add(c.entry_range());
  }
  EXPECT_THAT(worked_on, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(lock.events,
              ElementsAre("yield after 1 flush", "yield after 1 flush",
                          "yield after 1 flush"));
}

TEST_F(YieldPointTest, WithoutTheLockOneMaySleep) {
  FakeLock lock(tlb_);
  YieldPoint<FakeLock> yield(lock);
  TdpCursor c = Walk(4);
  bool called = false;
  yield.WithoutLock(c, [&] {
    called = true;
    EXPECT_FALSE(InRcuReadSection());
    EXPECT_THAT(lock.events, ElementsAre("unlock"));
  });
  EXPECT_TRUE(called);
  EXPECT_THAT(lock.events, ElementsAre("unlock", "relock"));
  EXPECT_TRUE(c.yielded());
  EXPECT_TRUE(InRcuReadSection());
}

// Covers: TDP-20
TEST_F(YieldPointTest, AWalkEndsThoughAThreadWaitsForTheLockAllTheTime) {
  MmuLock mmu_lock;
  Contender contender(mmu_lock);
  while (contender.turns() == 0) std::this_thread::yield();
  std::map<uint64_t, int> worked_on;
  uint64_t yields = 0;
  {
    MmuWriteLocked lock(mmu_lock, LockOp::kZap);
    YieldPoint<MmuWriteLocked> yield(lock);
    for (TdpCursor c = Walk(512); c.Valid(); c.Next()) {
      if (yield.MaybeYield(c, nullptr, nullptr)) {
        ++yields;
        continue;
      }
      if (c.level() == Level::k4K) {
        ++worked_on[c.gfn().value()];
        // Waits until the contender queues, so that the next step finds it
        // there.
        while (!lock.NeedYield()) std::this_thread::yield();
      }
    }
  }
  EXPECT_EQ(yields, 511u);
  EXPECT_EQ(worked_on.size(), 512u);
  for (const auto& [gfn, times] : worked_on) EXPECT_EQ(times, 1) << gfn;
  EXPECT_GE(contender.turns(), yields) << "each yield let it in";
}

}  // namespace
}  // namespace mmu
