#include "mmu_core/stage2/s2_shape.h"

#include <bit>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/arm_geometry.h"

namespace mmu {
namespace {

// {bits of the IPA, start level of the Arm ARM, tables of the root}
struct Row {
  int ipa_bits;
  int arm_level;
  int root_tables;
};

template <typename G>
void ExpectShape(const Row& row) {
  EXPECT_EQ(
      ShapeOf<G>(row.ipa_bits),
      (S2Shape{row.ipa_bits, FromArmLevel(row.arm_level), row.root_tables}))
      << row.ipa_bits << " bits";
}

// Covers: ARM-01
TEST(S2ShapeTest, TheRootIsAsKvmChoosesIt) {
  for (const Row& row :
       {Row{32, 2, 4}, Row{34, 2, 16}, Row{35, 1, 1}, Row{40, 1, 2},
        Row{43, 1, 16}, Row{44, 0, 1}, Row{48, 0, 1}}) {
    ExpectShape<Arm4K>(row);
  }
  for (const Row& row : {Row{32, 2, 1}, Row{36, 2, 1}, Row{40, 2, 16},
                         Row{41, 1, 1}, Row{47, 1, 1}, Row{48, 1, 2}}) {
    ExpectShape<Arm16K>(row);
  }
  // A root of level 3 would do for 32 and 33 bits, but could map no block.
  for (const Row& row : {Row{32, 2, 1}, Row{33, 2, 1}, Row{42, 2, 1},
                         Row{46, 2, 16}, Row{47, 1, 1}, Row{48, 1, 1}}) {
    ExpectShape<Arm64K>(row);
  }
}

template <typename G>
void ExpectRootHoldsEveryAddress() {
  for (int bits = kMinIpaBits; bits <= kMaxIpaBits; ++bits) {
    for (int arm_level = 0; arm_level <= 3; ++arm_level) {
      const std::optional<S2Shape> shape =
          ShapeFrom<G>(bits, FromArmLevel(arm_level));
      if (!shape.has_value()) continue;
      const int top_bits = LevelShift<G>(shape->start_level) + G::kEntryBits;
      const auto tables = static_cast<unsigned>(shape->root_tables);
      EXPECT_TRUE(std::has_single_bit(tables));
      EXPECT_EQ(tables == 1, bits <= top_bits);
      EXPECT_LE(bits, top_bits + std::countr_zero(tables));
    }
  }
}

TEST(S2ShapeTest, ARootHoldsEveryAddress) {
  ExpectRootHoldsEveryAddress<Arm4K>();
  ExpectRootHoldsEveryAddress<Arm16K>();
  ExpectRootHoldsEveryAddress<Arm64K>();
}

TEST(S2ShapeTest, AStartLevelThatTheArchitectureDoesNotHaveIsRefused) {
  // 17 bits of index would be 32 tables.
  EXPECT_EQ(ShapeFrom<Arm4K>(44, FromArmLevel(1)), std::nullopt);
  EXPECT_NE(ShapeFrom<Arm4K>(43, FromArmLevel(1)), std::nullopt);
  // No bits of index.
  EXPECT_EQ(ShapeFrom<Arm4K>(39, FromArmLevel(0)), std::nullopt);
  EXPECT_NE(ShapeFrom<Arm4K>(40, FromArmLevel(0)), std::nullopt);
  // Level 0 with 16 KiB needs FEAT_LPA2; 64 KiB has no level 0.
  EXPECT_EQ(ShapeFrom<Arm16K>(48, FromArmLevel(0)), std::nullopt);
  EXPECT_EQ(ShapeFrom<Arm64K>(48, FromArmLevel(0)), std::nullopt);
  // One level of tables.
  EXPECT_EQ(ShapeFrom<Arm64K>(32, FromArmLevel(3)), std::nullopt);
  // 52 bits need FEAT_LPA or FEAT_LPA2.
  EXPECT_EQ(ShapeFrom<Arm64K>(52, FromArmLevel(1)), std::nullopt);
  EXPECT_EQ(ShapeFrom<Arm4K>(31, FromArmLevel(2)), std::nullopt);
}

}  // namespace
}  // namespace mmu
