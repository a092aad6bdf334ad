// The input addresses and the root of stage-2 tables: what VTCR_EL2.T0SZ and
// VTCR_EL2.SL0 say (DDI0487, D8.2).
//
// A root may be up to 16 tables, concatenated: it then translates four more
// bits with no further level. KVM uses that wherever it saves a level, and has
// two levels at least, so that a block can be mapped at all.

#ifndef MMU_CORE_STAGE2_S2_SHAPE_H_
#define MMU_CORE_STAGE2_S2_SHAPE_H_

#include <algorithm>
#include <bit>
#include <optional>

#include "mmu_core/base/table_geometry.h"

namespace mmu {

inline constexpr int kMinIpaBits = 32;
// Without FEAT_LPA and FEAT_LPA2.
inline constexpr int kMaxIpaBits = 48;

// A value.
struct S2Shape {
  int ipa_bits = 0;     // an intermediate physical address is below 2^ipa_bits
  Level start_level{};  // of the root's entries
  int root_tables = 1;  // concatenated; a power of two

  friend bool operator==(const S2Shape&, const S2Shape&) = default;
};

// The bits of an address below those that are the index at `level`.
template <TableGeometry G>
constexpr int LevelShift(Level level) {
  return G::kGranuleShift + G::kEntryBits * (ToInt(level) - 1);
}

// The shape with that start level. nullopt if there is none: the root would
// have no entries, or more than 16 tables, or one level only, or the start
// level needs FEAT_LPA2 (level 0 with a granule of 16 KiB).
template <TableGeometry G>
constexpr std::optional<S2Shape> ShapeFrom(int ipa_bits, Level start_level) {
  if (ipa_bits < kMinIpaBits || ipa_bits > kMaxIpaBits) return std::nullopt;
  if (ToInt(start_level) < 2 || start_level > G::kMaxStartLevel) {
    return std::nullopt;
  }
  const int index_bits = ipa_bits - LevelShift<G>(start_level);
  const int tables_bits = std::max(0, index_bits - G::kEntryBits);
  if (index_bits < 1 || (1 << tables_bits) > G::kMaxRootTables) {
    return std::nullopt;
  }
  return S2Shape{ipa_bits, start_level, 1 << tables_bits};
}

// The shape that KVM chooses: the lowest start level that is possible.
// REQUIRES: kMinIpaBits <= ipa_bits <= kMaxIpaBits.
template <TableGeometry G>
constexpr S2Shape ShapeOf(int ipa_bits) {
  Level level{2};
  while (level < G::kMaxStartLevel && !ShapeFrom<G>(ipa_bits, level)) {
    level = ParentOf(level);
  }
  return *ShapeFrom<G>(ipa_bits, level);
}

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_SHAPE_H_
