// The shape of page tables: sizes and levels that follow from a granule.
//
// A granule is both the memory that an entry of level 1 maps and the size of a
// table. x86 has a granule of 4 KiB; Arm's stage 2 has 4, 16 or 64 KiB.
//
//   granule  bits a level  entries  level 1  level 2  level 3   level 4
//    4 KiB    9             512      4 KiB    2 MiB    1 GiB    512 GiB
//   16 KiB   11            2048     16 KiB   32 MiB   64 GiB    128 TiB
//   64 KiB   13            8192     64 KiB  512 MiB    4 TiB     32 PiB
//
// A Gfn counts 4 KiB units whatever the granule, as memslots and dirty logs do.
// A granule of 64 KiB is therefore 16 gfns, which share one entry: IndexOf
// returns the same index for each of them, RoundDown returns the first, and a
// change of the entry affects all 16.
//
// The geometry of x86, and these functions for it, are in base/level.h. The
// meaning of an entry is not part of a geometry; see paging/paging_traits.h.
//
// Some types exist only for the geometry of x86. An MMU with another geometry
// needs its own:
//   PageTable, ShadowPage, TablePool, TableCache   tables of 512 SPTEs
//   PageRole                                       the role of such a table
//   LpageInfo                                      blocks of 2 MiB and 1 GiB
// MmuCounters counts leafs of levels 1 to 3 by number, but the statistics name
// them "4k", "2m" and "1g".

#ifndef MMU_CORE_BASE_TABLE_GEOMETRY_H_
#define MMU_CORE_BASE_TABLE_GEOMETRY_H_

#include <bit>
#include <concepts>
#include <cstdint>

#include "mmu_core/base/address.h"

namespace mmu {

// Levels count from the leaf up, as in KVM: an entry of level 1 maps one
// granule. The names give the size that one entry maps with a granule of 4 KiB;
// with another granule only the number is meaningful: read k4K, k2M and k1G as
// levels 1, 2 and 3, write Level{1}, and take sizes from BytesPer<G>. (The Arm
// manual counts down: its level 3 is 1 here, and its level 0 is 4.)
enum class Level : uint8_t { k4K = 1, k2M = 2, k1G = 3, k512G = 4, k256T = 5 };

constexpr int ToInt(Level level) { return static_cast<int>(level); }
constexpr Level ParentOf(Level level) {
  return static_cast<Level>(ToInt(level) + 1);
}
// REQUIRES: level > 1.
constexpr Level ChildOf(Level level) {
  return static_cast<Level>(ToInt(level) - 1);
}

// The sizes that follow from a granule of 2^`granule_shift` bytes and 8-byte
// entries. The base class of every geometry.
template <int granule_shift>
struct Granule {
  static constexpr int kGranuleShift = granule_shift;
  static constexpr uint64_t kGranuleBytes = uint64_t{1} << kGranuleShift;
  static constexpr int kEntryBits = kGranuleShift - 3;
  static constexpr int kEntriesPerTable = 1 << kEntryBits;
};

// One struct per kind of page tables, derived from a Granule.
template <typename G>
concept TableGeometry = requires {
  requires std::derived_from<G, Granule<G::kGranuleShift>>;
  // The highest level that a root can have.
  { G::kMaxLevel } -> std::same_as<const Level&>;
  // The highest level at which an entry may map memory.
  { G::kMaxLeafLevel } -> std::same_as<const Level&>;
  // The maximum number of tables that form a root, contiguous in memory; a
  // power of two. A root of 2 tables maps twice as much with no further level.
  // Arm allows up to 16 (concatenated tables), x86 has 1.
  { G::kMaxRootTables } -> std::same_as<const int&>;
  // A granule is at least a gfn: no gfn is split between two entries.
  requires G::kGranuleShift >= kPageShift;
  requires Level { 1 }
  <= G::kMaxLeafLevel&& G::kMaxLeafLevel <= G::kMaxLevel;
  requires std::has_single_bit(static_cast<unsigned>(G::kMaxRootTables));
  // The end of the largest root fits in a 64-bit address.
  requires G::kGranuleShift + G::kEntryBits* ToInt(G::kMaxLevel) +
          std::countr_zero(static_cast<unsigned>(G::kMaxRootTables)) <
      64;
};

// log2 of the gfns that one entry of `level` covers.
template <TableGeometry G>
constexpr int PagesShift(Level level) {
  return G::kGranuleShift - kPageShift + G::kEntryBits * (ToInt(level) - 1);
}
// The gfns that one entry of `level` covers.
template <TableGeometry G>
constexpr uint64_t PagesPer(Level level) {
  return uint64_t{1} << PagesShift<G>(level);
}
template <TableGeometry G>
constexpr uint64_t BytesPer(Level level) {
  return PagesPer<G>(level) << kPageShift;
}

// Index of the entry for `gfn` in a table of `level` (TRM-01).
template <TableGeometry G>
constexpr int IndexOf(Gfn gfn, Level level) {
  return static_cast<int>((gfn.value() >> PagesShift<G>(level)) &
                          (G::kEntriesPerTable - 1));
}

// The first gfn that the entry of `level` for `gfn` covers.
template <TableGeometry G>
constexpr Gfn RoundDown(Gfn gfn, Level level) {
  return Gfn(gfn.value() & ~(PagesPer<G>(level) - 1));
}
template <TableGeometry G>
constexpr Gfn RoundUp(Gfn gfn, Level level) {
  return RoundDown<G>(gfn + (PagesPer<G>(level) - 1), level);
}
template <TableGeometry G>
constexpr bool IsAligned(Gfn gfn, Level level) {
  return RoundDown<G>(gfn, level) == gfn;
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_TABLE_GEOMETRY_H_
