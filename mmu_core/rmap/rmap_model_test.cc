// Random changes of rmaps, compared with multisets that have no descriptors.
// The encoding is checked after each change.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "gtest/gtest.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/rmap_test_util.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {
namespace {

using ::mmu::testing::ContentsOf;
using ::mmu::testing::DescsOf;

using Contents = std::multiset<const SpteSlot*>;

constexpr int kSteps = 5000;
constexpr size_t kRmaps = 4;
constexpr size_t kSptes = 300;

class RmapModelTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  size_t Random(size_t n) { return random_() % n; }

  // Fills the cache without the lock, which the test holds otherwise. Not
  // analysed, because the lock is held again at the end.
  void TopUp() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    lock_.Unlock();
    ASSERT_TRUE(cache_.TopUp({.min = 1, .capacity = 8}).ok());
    lock_.Relock();
  }

  // Adds a random SPTE to `rmap`, unless an rmap has it already.
  void AddOne(size_t rmap) {
    const size_t i = Random(kSptes);
    if (owner_[i] != kNone) return;
    TopUp();
    const uint64_t before =
        rmaps_[rmap].Add(lock_, sptes_[i], cache_, counters_);
    ASSERT_EQ(before, model_[rmap].size());
    model_[rmap].insert(&sptes_[i]);
    owner_[i] = rmap;
  }

  // Removes a random SPTE from its rmap, if it is in one.
  void RemoveOne() {
    const size_t i = Random(kSptes);
    if (owner_[i] == kNone) return;
    rmaps_[owner_[i]].Remove(lock_, sptes_[i], counters_);
    model_[owner_[i]].erase(&sptes_[i]);
    owner_[i] = kNone;
  }

  void ZapAll(size_t rmap) {
    Contents dropped;
    const bool any = rmaps_[rmap].ZapAll(
        lock_, [&](SpteSlot& sptep) { dropped.insert(&sptep); }, counters_);
    ASSERT_EQ(any, !model_[rmap].empty());
    ASSERT_EQ(dropped, model_[rmap]);
    model_[rmap].clear();
    for (size_t& owner : owner_) {
      if (owner == rmap) owner = kNone;
    }
  }

  void Check() {
    size_t descs = 0;
    for (size_t r = 0; r < kRmaps; ++r) {
      ASSERT_EQ(rmaps_[r].WhyMalformed(lock_), "");
      ASSERT_EQ(rmaps_[r].WordForTest() & RmapHead::kLocked, 0u);
      ASSERT_EQ(rmaps_[r].Count(lock_), model_[r].size());
      ASSERT_EQ(ContentsOf(rmaps_[r]), model_[r]);
      Contents walked;
      for (RmapIterator it = rmaps_[r].Entries(lock_); it.Valid(); it.Next()) {
        walked.insert(&it.sptep());
      }
      ASSERT_EQ(walked, model_[r]);
      ASSERT_EQ(rmaps_[r].empty(), model_[r].empty());
      // A list has as few descriptors as possible, except that a list that has
      // shrunk to one SPTE may keep its descriptor.
      const size_t own = DescsOf(rmaps_[r]).size();
      const size_t most =
          (model_[r].size() + kPteListEntries - 1) / kPteListEntries;
      ASSERT_LE(own, most);
      ASSERT_GE(own, model_[r].size() > 1 ? most : 0);
      descs += own;
    }
    ASSERT_EQ(pool_.Snapshot().descs_out, descs + cache_.count());
  }

  static constexpr size_t kNone = kRmaps;

  std::mt19937 random_{GetParam()};
  PteListPool pool_;
  PteListCache cache_{pool_};
  MmuCounters counters_;
  MmuLock mmu_lock_;
  MmuWriteLocked lock_{mmu_lock_, LockOp::kFault};
  std::array<SpteSlot, kSptes> sptes_;
  std::vector<size_t> owner_ = std::vector<size_t>(kSptes, kNone);
  std::array<RmapHead, kRmaps> rmaps_;
  std::array<Contents, kRmaps> model_;
};

// Covers: SHD-11, SHD-12
TEST_P(RmapModelTest, RmapsAgreeWithMultisetsWhateverIsDoneToThem) {
  size_t largest = 0;
  for (int step = 0; step < kSteps; ++step) {
    SCOPED_TRACE(step);
    // The rmaps grow for 1000 steps, then shrink for 1000. Rmap 0 stays small.
    const bool growing = (step / 1000) % 2 == 0;
    const size_t rmap = Random(10) == 0 ? 0 : 1 + Random(kRmaps - 1);
    const size_t choice = Random(200);
    if (choice == 0) {
      ZapAll(rmap);
    } else if (choice < (growing ? 140 : 60)) {
      AddOne(rmap);
    } else {
      RemoveOne();
    }
    Check();
    if (HasFatalFailure()) return;
    for (const Contents& contents : model_) {
      largest = std::max(largest, contents.size());
    }
  }
  EXPECT_GT(largest, 3 * kPteListEntries) << "some had several descriptors";
  for (size_t r = 0; r < kRmaps; ++r) ZapAll(r);
  Check();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RmapModelTest, ::testing::Range(1u, 5u));

}  // namespace
}  // namespace mmu
