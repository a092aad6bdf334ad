// The steps of a yield one by one. The lock and the cursor are fakes that note
// their calls; the RCU section is the real one.

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string>& Steps() {
  static auto* steps = new std::vector<std::string>;
  return *steps;
}

void Note(const std::string& step) {
  Steps().push_back(step + (InRcuReadSection() ? " in RCU" : ""));
}

class FakeLock {
 public:
  bool NeedYield() const { return true; }
  void CountWork(int64_t) {}
  int64_t work() const { return 0; }
  int64_t held_since() const { return 0; }
  void Yield() { Note("yield"); }
  void Unlock() { Note("unlock"); }
  void Relock() { Note("relock"); }
};

class FakeCursor {
 public:
  bool MayYield() const { return !yielded_; }
  void MarkYielded() {
    yielded_ = true;
    Note("cursor");
  }

 private:
  bool yielded_ = false;
};

class YieldStepsTest : public ::testing::Test {
 protected:
  YieldStepsTest() { Steps().clear(); }

  RemoteTlb tlb_;
  FakeLock lock_;
  FakeCursor cursor_;
};

// Covers: TDP-21, TDP-22
TEST_F(YieldStepsTest, AYieldFlushesThenLeavesRcuThenLetsGoThenEntersRcu) {
  TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kZap);
  batch.Add(GfnRange::Of(Gfn(5), 1));
  YieldPoint<FakeLock> yield(lock_);
  EXPECT_TRUE(yield.MaybeYield(cursor_, &batch, nullptr));
  EXPECT_FALSE(batch.pending());
  EXPECT_THAT(Steps(), ElementsAre("flush in RCU", "yield", "cursor in RCU"));
}

// Covers: TDP-20
TEST_F(YieldStepsTest, ThereIsAStepBetweenTwoYields) {
  YieldPoint<FakeLock> yield(lock_);
  EXPECT_TRUE(yield.MaybeYield(cursor_, nullptr, nullptr));
  Steps().clear();
  EXPECT_FALSE(yield.MaybeYield(cursor_, nullptr, nullptr));
  EXPECT_THAT(Steps(), IsEmpty());
  FakeCursor next;
  EXPECT_TRUE(yield.MaybeYield(next, nullptr, nullptr));
}

TEST_F(YieldStepsTest, WithoutTheLockThereIsNoRcuSectionEither) {
  YieldPoint<FakeLock> yield(lock_);
  yield.WithoutLock(cursor_, [] { Note("work"); });
  EXPECT_THAT(Steps(),
              ElementsAre("unlock", "work", "relock", "cursor in RCU"));
}

}  // namespace

bool ShouldSkipFlush(FlushReason) {
  Note("flush");
  return true;
}

}  // namespace mmu
