// Levels of x86 page tables and the page sizes that go with them.
//
//   level  name    maps per entry   leaf allowed
//   1      k4K     4 KiB            yes
//   2      k2M     2 MiB            yes
//   3      k1G     1 GiB            yes
//   4      k512G   512 GiB          no
//   5      k256T   256 TiB          no
//
// One table has 512 entries; each level adds 9 address bits (TRM-01, TRM-03;
// SDM vol. 3, 4.5 and 29.3). Level itself, and the same functions for tables of
// another shape, are in base/table_geometry.h.

#ifndef MMU_CORE_BASE_LEVEL_H_
#define MMU_CORE_BASE_LEVEL_H_

#include <cstdint>
#include <string_view>

#include "mmu_core/base/address.h"
#include "mmu_core/base/table_geometry.h"

namespace mmu {

// The geometry of EPT, NPT and legacy paging with 8-byte entries.
struct X86Geometry : Granule<12> {
  static constexpr Level kMaxLevel = Level::k256T;
  static constexpr Level kMaxLeafLevel = Level::k1G;
  static constexpr int kMaxRootTables = 1;
};

inline constexpr Level kMaxLeafLevel = X86Geometry::kMaxLeafLevel;
// The levels up to kMaxLeafLevel, from the smallest pages to the largest.
inline constexpr Level kLeafLevels[] = {Level::k4K, Level::k2M, Level::k1G};
inline constexpr int kEntryBits = X86Geometry::kEntryBits;
inline constexpr int kEntriesPerTable = X86Geometry::kEntriesPerTable;

// log2 of the 4 KiB pages that one entry of `level` covers.
constexpr int PagesShift(Level level) { return PagesShift<X86Geometry>(level); }
constexpr uint64_t PagesPer(Level level) {
  return PagesPer<X86Geometry>(level);
}
constexpr uint64_t BytesPer(Level level) {
  return BytesPer<X86Geometry>(level);
}

// Index of the entry for `gfn` in a table of `level` (TRM-01).
constexpr int IndexOf(Gfn gfn, Level level) {
  return IndexOf<X86Geometry>(gfn, level);
}

constexpr Gfn RoundDown(Gfn gfn, Level level) {
  return RoundDown<X86Geometry>(gfn, level);
}
constexpr Gfn RoundUp(Gfn gfn, Level level) {
  return RoundUp<X86Geometry>(gfn, level);
}
constexpr bool IsAligned(Gfn gfn, Level level) {
  return IsAligned<X86Geometry>(gfn, level);
}

// The same for a page number that a vCPU translates (base/address.h).
constexpr int IndexOf(PageNumber page, Level level) {
  return IndexOf(Gfn(page.value()), level);
}
constexpr PageNumber RoundDown(PageNumber page, Level level) {
  return PageNumber(RoundDown(Gfn(page.value()), level).value());
}
constexpr bool IsAligned(PageNumber page, Level level) {
  return RoundDown(page, level) == page;
}

// The names used in statistics: "4k", "2m", "1g", "512g", "256t".
constexpr std::string_view PageSizeName(Level level) {
  switch (level) {
    case Level::k4K:
      return "4k";
    case Level::k2M:
      return "2m";
    case Level::k1G:
      return "1g";
    case Level::k512G:
      return "512g";
    case Level::k256T:
      return "256t";
  }
  return "invalid";
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_LEVEL_H_
