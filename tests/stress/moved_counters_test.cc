#include "tests/stress/moved_counters.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/vm_stats.h"

namespace mmu::stress {
namespace {

using ::testing::Contains;
using ::testing::Not;

TEST(MovedCountersTest, NoneHasMovedAtFirst) {
  const MovedCounters none;
  EXPECT_EQ(none.Unmoved().size(),
            VmCounterRows().size() + VcpuCounterRows().size());
  MovedCounters of_a_new_vm;
  of_a_new_vm.See({});
  EXPECT_EQ(of_a_new_vm.Unmoved(), none.Unmoved());
}

// A number, a peak, one value of a row with labels, and a histogram; a gauge
// that is 0 again has moved.
TEST(MovedCountersTest, OneValueThatWasNotZeroOnceIsEnough) {
  MovedCounters moved;
  VmStatsSnapshot stats;
  stats.mmu_unsync = 1;
  moved.See(stats);
  stats = {};
  stats.mmus[1].splits[1][0] = 1;
  stats.vcpus.pf_guest = 1;
  moved.See(stats);
  for (const char* name : {"mmu_unsync", "huge_page_splits", "vcpu.pf_guest"}) {
    EXPECT_THAT(moved.Unmoved(), Not(Contains(name)));
  }
  EXPECT_THAT(moved.Unmoved(), Contains("mmu_flooded"));
  EXPECT_EQ(moved.Unmoved().size(), MovedCounters().Unmoved().size() - 3);
}

TEST(MovedCountersTest, CountersOfSeveralRoundsAreJoined) {
  VmStatsSnapshot stats;
  stats.mmu_flooded = 1;
  MovedCounters first;
  first.See(stats);
  stats = {};
  stats.pages_1g = 1;
  MovedCounters second;
  second.See(stats);
  first.Add(second);
  EXPECT_THAT(first.Unmoved(), Not(Contains("mmu_flooded")));
  EXPECT_THAT(first.Unmoved(), Not(Contains("pages_1g")));
  EXPECT_THAT(second.Unmoved(), Contains("mmu_flooded"));
}

}  // namespace
}  // namespace mmu::stress
