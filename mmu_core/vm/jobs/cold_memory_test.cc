#include "mmu_core/vm/jobs/cold_memory.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/jobs/generation_coverage.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {
namespace {

constexpr uint64_t kPages = 8;

// Generation n begins at 10 n and ends at 10 n + 5.
class ColdMemoryTest : public ::testing::Test {
 protected:
  static GfnRange Pages(uint64_t first, uint64_t count = 1) {
    return GfnRange::Of(Gfn(first), count);
  }
  void Sync(const std::vector<TrackedSlot>& slots) {
    ASSERT_TRUE(set_.SyncSlots(slots).ok());
  }
  void Generate(GfnRange young, const GenerationCoverage& coverage = {}) {
    const int64_t number = ++generations_;
    set_.Begin(10 * number);
    set_.RecordAll(young);
    GenerationTotals totals;
    totals.coverage = coverage.ToFlags();
    set_.End(10 * number + 5, totals);
  }
  // The number of cold pages among the first eight.
  uint64_t ColdSince(int64_t since) const {
    const GenerationView view = set_.View();
    const ColdMemory cold(set_, view, since);
    const std::vector<GenerationAge> ages =
        HeatOfBlocks(view, Pages(0, kPages), Level::k4K);
    uint64_t count = 0;
    for (uint64_t page = 0; page < kPages; ++page) {
      count += cold.Contains(Pages(page), ages[page]) ? 1 : 0;
    }
    return count;
  }

  WorkingSet set_;
  int64_t generations_ = 0;
};

TEST_F(ColdMemoryTest, IsKnownFromTheTimesOfGenerations) {
  Sync({{0, 1, Pages(0, kPages)}});
  Generate(Pages(0, 3));
  Generate(Pages(0, 2));
  Generate(Pages(0));
  // Pages 3 to 7 were never young, page 2 until 15, page 1 until 25.
  EXPECT_EQ(ColdSince(9), 0u) << "nothing is known of that time";
  EXPECT_EQ(ColdSince(10), 5u);
  EXPECT_EQ(ColdSince(14), 5u);
  EXPECT_EQ(ColdSince(15), 6u);
  EXPECT_EQ(ColdSince(25), 7u);
  EXPECT_EQ(ColdSince(1000), 7u) << "page 0 was young in the last one";
}

TEST_F(ColdMemoryTest, NeedsAWholeGenerationThatFoundItOld) {
  Sync({{0, 1, Pages(0, kPages)}});
  Generate(Pages(0), {.look_around = true});
  EXPECT_EQ(ColdSince(1000), 0u);
  Generate(Pages(1), {.incomplete = true});
  EXPECT_EQ(ColdSince(1000), 0u);
  GenerationCoverage skipped;
  skipped.reach.mmus[0].skipped = true;
  Generate(Pages(2), skipped);
  EXPECT_EQ(ColdSince(1000), 0u);
  Generate(Pages(3));
  EXPECT_EQ(ColdSince(1000), kPages - 1);
  EXPECT_EQ(ColdSince(10), kPages - 4) << "known since the first one";
  Generate(Pages(4), {.incomplete = true});
  EXPECT_EQ(ColdSince(1000), kPages - 2);
}

TEST_F(ColdMemoryTest, IsNotWhereAccessesMayBeHidden) {
  for (bool GenerationCoverage::*hides :
       {&GenerationCoverage::lost, &GenerationCoverage::others_cleared}) {
    GenerationCoverage coverage;
    coverage.*hides = true;
    const int64_t end = 10 * (generations_ + 2) + 5;
    Sync({{0, 1, Pages(0, kPages)}});
    Generate(Pages(0));
    Generate(Pages(0), coverage);
    Generate(Pages(0));
    EXPECT_EQ(ColdSince(end - 1), 0u);
    EXPECT_EQ(ColdSince(end), kPages - 1) << "hidden are earlier accesses";
  }
}

TEST_F(ColdMemoryTest, IsKnownOfASlotSinceItIsThere) {
  Sync({{0, 1, Pages(0, 4)}});
  Generate(Pages(0, 0));
  Sync({{0, 1, Pages(0, 4)}, {1, 1, Pages(4, 2)}});
  Generate(Pages(0, 0));
  EXPECT_EQ(ColdSince(19), 4u);
  EXPECT_EQ(ColdSince(20), 6u) << "no slot has pages 6 and 7";
  Sync({{0, 1, Pages(0, 4)}, {1, 1, Pages(6, 2)}});
  EXPECT_EQ(ColdSince(20), 4u) << "a move unmaps pages";
  Generate(Pages(0, 0));
  EXPECT_EQ(ColdSince(29), 4u);
  EXPECT_EQ(ColdSince(30), 6u);
}

TEST_F(ColdMemoryTest, EndsWithWhatIsRemembered) {
  Sync({{0, 1, Pages(0, kPages)}});
  for (uint64_t i = 0; i < kKeptGenerations; ++i) Generate(Pages(0));
  EXPECT_EQ(ColdSince(10), kPages - 1);
  Generate(Pages(0));
  EXPECT_EQ(ColdSince(19), 0u);
  EXPECT_EQ(ColdSince(20), kPages - 1);
}

}  // namespace
}  // namespace mmu
