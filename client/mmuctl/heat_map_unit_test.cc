#include "client/mmuctl/heat_map_unit.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kTiB = kGiB * 1024;

TEST(HeatMapUnitTest, ItIsTheSmallestWithWhichTheMapIsAllowed) {
  EXPECT_EQ(SmallestUnit({}), v1::PAGE_SIZE_4K);
  // 4,194,304 units of 4 KiB.
  EXPECT_EQ(SmallestUnit({{0, 16 * kGiB}}), v1::PAGE_SIZE_4K);
  EXPECT_EQ(SmallestUnit({{0, 16 * kGiB}, {32 * kGiB, 4096}}),
            v1::PAGE_SIZE_2M);
  EXPECT_EQ(SmallestUnit({{0, 8 * kTiB}}), v1::PAGE_SIZE_2M);
  // The same memory, with parts of two units at its ends.
  EXPECT_EQ(SmallestUnit({{4096, 8 * kTiB}}), v1::PAGE_SIZE_1G);
}

}  // namespace
}  // namespace mmud::client
