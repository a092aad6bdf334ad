#include "mmu_core/stats/labels.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

template <typename Enum>
std::vector<std::string> NamesOf(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    names.emplace_back(ToString(static_cast<Enum>(i)));
  }
  return names;
}

// The names are label values of exported series: changing one breaks queries.
TEST(LabelsTest, NamesAreThoseOfTheExportedSeries) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(NamesOf<MmuKind>(kMmuKinds), (Names{"tdp", "shadow", "stage2"}));
  EXPECT_EQ(NamesOf<LockOp>(kLockOps),
            (Names{"fault", "enable", "split", "clear", "age", "zap", "recover",
                   "memslot", "notifier"}));
  EXPECT_EQ(NamesOf<LockMode>(kLockModes), (Names{"read", "write"}));
  EXPECT_EQ(NamesOf<FlushScope>(kFlushScopes), (Names{"vm", "range", "vcpu"}));
  EXPECT_EQ(NamesOf<FlushReason>(kFlushReasons),
            (Names{"zap", "write_protect", "clear_dirty", "split", "recover",
                   "unsync", "root", "notifier", "age", "bbm"}));
  EXPECT_EQ(NamesOf<StallCause>(kStallCauses),
            (Names{"write_protect", "split", "lock", "flush", "ring_full",
                   "invalidation"}));
  EXPECT_EQ(NamesOf<FaultOutcome>(kFaultOutcomes),
            (Names{"fixed", "fast", "spurious", "emulate", "retry", "error"}));
  EXPECT_EQ(NamesOf<SplitTrigger>(kSplitTriggers),
            (Names{"eager", "clear", "fault", "nx", "request"}));
  EXPECT_EQ(NamesOf<SplitFailure>(kSplitFailures),
            (Names{"no_memory", "raced", "limit", "invalid_root"}));
  EXPECT_EQ(NamesOf<ThrottleLimit>(kThrottleLimits),
            (Names{"rate", "lock_hold", "flush", "stall", "pause"}));
  EXPECT_EQ(NamesOf<TlbiKind>(kTlbiKinds),
            (Names{"ipas2e1is", "ripas2e1is", "vmalls12e1is", "vmalle1is",
                   "ipas2e1", "vmalle1"}));
}

TEST(LabelsTest, ValueOutsideTheEnumHasANameOfItsOwn) {
  EXPECT_EQ(ToString(static_cast<LockOp>(kLockOps)), "invalid");
  EXPECT_EQ(ToString(static_cast<FlushReason>(255)), "invalid");
}

}  // namespace
}  // namespace mmu
