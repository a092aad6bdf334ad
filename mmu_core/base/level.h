// Levels of a page table and the page sizes that go with them.
//
//   level  name    maps per entry   leaf allowed
//   1      k4K     4 KiB            yes
//   2      k2M     2 MiB            yes
//   3      k1G     1 GiB            yes
//   4      k512G   512 GiB          no
//   5      k256T   256 TiB          no
//
// One table has 512 entries; each level adds 9 address bits (TRM-01, TRM-03;
// SDM vol. 3, 4.5 and 29.3). Levels count from the leaf up, as in KVM.

#ifndef MMU_CORE_BASE_LEVEL_H_
#define MMU_CORE_BASE_LEVEL_H_

#include <cstdint>
#include <string_view>

#include "mmu_core/base/address.h"

namespace mmu {

enum class Level : uint8_t { k4K = 1, k2M = 2, k1G = 3, k512G = 4, k256T = 5 };

inline constexpr Level kMaxLeafLevel = Level::k1G;
inline constexpr int kEntryBits = 9;
inline constexpr int kEntriesPerTable = 1 << kEntryBits;

constexpr int ToInt(Level level) { return static_cast<int>(level); }
constexpr Level ParentOf(Level level) {
  return static_cast<Level>(ToInt(level) + 1);
}
// REQUIRES: level > k4K.
constexpr Level ChildOf(Level level) {
  return static_cast<Level>(ToInt(level) - 1);
}

// log2 of the 4 KiB pages that one entry of `level` covers.
constexpr int PagesShift(Level level) {
  return kEntryBits * (ToInt(level) - 1);
}
constexpr uint64_t PagesPer(Level level) {
  return uint64_t{1} << PagesShift(level);
}
constexpr uint64_t BytesPer(Level level) {
  return PagesPer(level) << kPageShift;
}

// Index of the entry for `gfn` in a table of `level` (TRM-01).
constexpr int IndexOf(Gfn gfn, Level level) {
  return static_cast<int>((gfn.value() >> PagesShift(level)) &
                          (kEntriesPerTable - 1));
}

constexpr Gfn RoundDown(Gfn gfn, Level level) {
  return Gfn(gfn.value() & ~(PagesPer(level) - 1));
}
constexpr Gfn RoundUp(Gfn gfn, Level level) {
  return RoundDown(gfn + (PagesPer(level) - 1), level);
}
constexpr bool IsAligned(Gfn gfn, Level level) {
  return RoundDown(gfn, level) == gfn;
}

// "4k", "2m", "1g", "512g", "256t": the words used in statistics.
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
