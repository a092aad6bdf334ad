#include "mmu_core/stats/vm_counters.h"

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

TEST(VmCountersTest, EachMmuCountsByItselfAndTheVmHasTheSum) {
  VmCounters counters;
  counters.of(MmuKind::kTdp).AddLeafs(Level::k4K, 5);
  counters.of(MmuKind::kShadow).AddLeafs(Level::k4K, 2);
  counters.of(MmuKind::kTdp).AddTables(3);
  counters.of(MmuKind::kShadow).CountSplit(Level::k2M, SplitTrigger::kNx);
  EXPECT_EQ(counters.of(MmuKind::kTdp).Leafs(Level::k4K), 5u);
  EXPECT_EQ(counters.of(MmuKind::kShadow).Leafs(Level::k4K), 2u);
  EXPECT_EQ(counters.Leafs(Level::k4K), 7u);
  EXPECT_EQ(counters.Leafs(Level::k2M), 0u);
  EXPECT_EQ(counters.of(MmuKind::kShadow).Tables(), 0u);
  EXPECT_EQ(counters.of(MmuKind::kTdp).Tables(), 3u);
  EXPECT_EQ(counters.of(MmuKind::kTdp).Splits(Level::k2M, SplitTrigger::kNx),
            0u);
  EXPECT_EQ(counters.of(MmuKind::kShadow).Splits(Level::k2M, SplitTrigger::kNx),
            1u);
}

}  // namespace
}  // namespace mmu
