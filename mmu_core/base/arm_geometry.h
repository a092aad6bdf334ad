// The shapes of Arm's stage-2 tables (DDI0487, D8.2): one per granule.
//
//   granule  levels of the Arm ARM       blocks
//    4 KiB   0 to 3                      2 MiB at level 2, 1 GiB at level 1
//   16 KiB   0 to 3                      32 MiB at level 2
//   64 KiB   1 to 3                      512 MiB at level 2
//
// Level counts from the leaf up (base/table_geometry.h), so level n of the Arm
// ARM is Level{4 - n} here.
//
// Addresses have 48 bits at most. The wider formats of FEAT_LPA and FEAT_LPA2
// move bits of the output address and add block sizes; they are not built.

#ifndef MMU_CORE_BASE_ARM_GEOMETRY_H_
#define MMU_CORE_BASE_ARM_GEOMETRY_H_

#include "mmu_core/base/table_geometry.h"

namespace mmu {

struct Arm4K : Granule<12> {
  static constexpr Level kMaxLevel{4};
  static constexpr Level kMaxStartLevel{4};  // level 0 of the Arm ARM
  static constexpr Level kMaxLeafLevel{3};
  static constexpr int kMaxRootTables = 16;
};
struct Arm16K : Granule<14> {
  static constexpr Level kMaxLevel{4};
  // Level 1 of the Arm ARM: stage 2 starts at level 0 only with FEAT_LPA2.
  static constexpr Level kMaxStartLevel{3};
  static constexpr Level kMaxLeafLevel{2};
  static constexpr int kMaxRootTables = 16;
};
struct Arm64K : Granule<16> {
  static constexpr Level kMaxLevel{3};
  static constexpr Level kMaxStartLevel{3};  // level 1 of the Arm ARM
  static constexpr Level kMaxLeafLevel{2};
  static constexpr int kMaxRootTables = 16;
};

static_assert(TableGeometry<Arm4K>);
static_assert(TableGeometry<Arm16K>);
static_assert(TableGeometry<Arm64K>);

// The number that the Arm ARM has for `level`.
constexpr int ArmLevel(Level level) { return 4 - ToInt(level); }
constexpr Level FromArmLevel(int arm_level) {
  return static_cast<Level>(4 - arm_level);
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_ARM_GEOMETRY_H_
