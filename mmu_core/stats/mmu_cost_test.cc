#include "mmu_core/stats/mmu_cost.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(MmuCostTest, AddSumsEverythingButTheLongestHold) {
  MmuCost cost{.wall = absl::Microseconds(10),
               .lock_wait = absl::Microseconds(2),
               .max_lock_hold = absl::Microseconds(5),
               .tlb_flush_count = 1,
               .vcpus_kicked_count = 2,
               .sptes_visited_count = 100};
  const MmuCost other{.wall = absl::Microseconds(20),
                      .lock_wait = absl::Microseconds(3),
                      .max_lock_hold = absl::Microseconds(4),
                      .tlb_flush_count = 10,
                      .vcpus_kicked_count = 20,
                      .sptes_visited_count = 1000};
  cost.Add(other);
  EXPECT_EQ(cost.wall, absl::Microseconds(30));
  EXPECT_EQ(cost.lock_wait, absl::Microseconds(5));
  EXPECT_EQ(cost.max_lock_hold, absl::Microseconds(5));
  EXPECT_EQ(cost.tlb_flush_count, 11);
  EXPECT_EQ(cost.vcpus_kicked_count, 22);
  EXPECT_EQ(cost.sptes_visited_count, 1100);
}

}  // namespace
}  // namespace mmu
