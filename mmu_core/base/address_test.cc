#include "mmu_core/base/address.h"

#include <gtest/gtest.h>

#include <sstream>
#include <type_traits>

#include "absl/hash/hash_testing.h"

namespace mmu {
namespace {

static_assert(!std::is_convertible_v<uint64_t, Gfn>);
static_assert(!std::is_convertible_v<Gfn, Pfn>);
static_assert(!std::is_constructible_v<Pfn, Gfn>);
static_assert(!std::is_convertible_v<Gpa, Gfn>);

TEST(AddressTest, FrameOfAnAddressForgetsTheOffsetInThePage) {
  EXPECT_EQ(ToGfn(Gpa(0x12345fff)), Gfn(0x12345));
  EXPECT_EQ(ToGfn(Gpa(0x12346000)), Gfn(0x12346));
}

TEST(AddressTest, AddressOfAFrameIsItsFirstByte) {
  EXPECT_EQ(ToGpa(Gfn(0x12345)), Gpa(0x12345000));
  EXPECT_EQ(ToHpa(Pfn(1)), Hpa(4096));
}

TEST(AddressTest, DistanceOfTwoFramesIsANumberOfFrames) {
  EXPECT_EQ(Gfn(10) - Gfn(4), uint64_t{6});
  EXPECT_EQ(Gfn(10) - 4, Gfn(6));
  Gfn gfn(10);
  gfn += 5;
  EXPECT_EQ(gfn, Gfn(15));
}

TEST(AddressTest, PageAlignmentLooksAtTheLowTwelveBits) {
  EXPECT_TRUE(IsPageAligned(0));
  EXPECT_TRUE(IsPageAligned(0x1000));
  EXPECT_FALSE(IsPageAligned(0x1001));
  EXPECT_FALSE(IsPageAligned(0xfff));
}

TEST(AddressTest, PrintsAsHexAndLeavesTheStreamDecimal) {
  std::ostringstream os;
  os << Gfn(0xab) << " " << 10;
  EXPECT_EQ(os.str(), "0xab 10");
}

TEST(AddressTest, HashAgreesWithEquality) {
  EXPECT_TRUE(absl::VerifyTypeImplementsAbslHashCorrectly(
      {Gfn(), Gfn(1), Gfn(uint64_t{1} << 40), Gfn(~uint64_t{0})}));
}

}  // namespace
}  // namespace mmu
