#include "mmu_core/guest/stamp.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(StampTest, TellsWhoWroteAndWhichWriteItWas) {
  for (const uint32_t vcpu : {0u, 1u, 255u, kMaxStampVcpus - 1}) {
    for (const uint64_t sequence :
         {uint64_t{0}, uint64_t{1}, uint64_t{123456789}, kStampSequenceMask}) {
      const uint64_t stamp = MakeStamp(vcpu, sequence);
      EXPECT_TRUE(IsStamp(stamp));
      EXPECT_EQ(StampVcpuIndex(stamp), vcpu);
      EXPECT_EQ(StampSequence(stamp), sequence);
    }
  }
}

TEST(StampTest, NoStampIsZeroEvenWhenTheSequenceWraps) {
  EXPECT_NE(MakeStamp(0, 0), 0u);
  EXPECT_EQ(MakeStamp(0, kStampSequenceMask + 1), MakeStamp(0, 0));
  EXPECT_FALSE(IsStamp(0));
}

}  // namespace
}  // namespace mmu
