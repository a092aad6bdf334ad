// The shapes of x86 page tables, as a guest's kernel uses them.
//
//   name      levels  entry  index bits  large page
//   k32Bit    2       4 B    10          4 MiB
//   kPae      3       8 B    9 (top: 2)  2 MiB
//   k4Level   4       8 B    9           2 MiB
//   k5Level   5       8 B    9           2 MiB
//
// (SDM vol. 3, 4.3 to 4.5.)

#ifndef MMU_CORE_GUEST_KERNEL_PAGING_GEOMETRY_H_
#define MMU_CORE_GUEST_KERNEL_PAGING_GEOMETRY_H_

#include <cstdint>
#include <string_view>

#include "mmu_core/base/address.h"

namespace mmu {

// Bits of a guest's page-table entry.
namespace gpte {
inline constexpr uint64_t kPresent = uint64_t{1} << 0;
inline constexpr uint64_t kWrite = uint64_t{1} << 1;
inline constexpr uint64_t kUser = uint64_t{1} << 2;
inline constexpr uint64_t kAccessed = uint64_t{1} << 5;
inline constexpr uint64_t kDirty = uint64_t{1} << 6;
inline constexpr uint64_t kPageSize = uint64_t{1} << 7;
// Ignored by the processor; this kernel marks copy-on-write pages with it.
inline constexpr uint64_t kCopyOnWrite = uint64_t{1} << 9;
inline constexpr uint64_t kAddress = 0x000f'ffff'ffff'f000;
}  // namespace gpte

// A value; the four constants below are the only ones. Levels count from 1,
// whose entries map 4 KiB pages.
struct PagingGeometry {
  std::string_view name;
  int levels = 4;
  int entry_bytes = 8;
  int index_bits = 9;
  // The kernel maps all guest-physical memory from here to the end of the
  // address space; programs use the addresses below `user_end`.
  Gva direct_map;
  Gva user_end;
  // The size of the direct map's area.
  uint64_t max_memory_bytes = 0;

  constexpr int EntriesPerTable() const { return 1 << index_bits; }
  constexpr int TopEntries() const { return levels == 3 ? 4 : 1 << index_bits; }
  constexpr int ShiftOf(int level) const {
    return kPageShift + index_bits * (level - 1);
  }
  constexpr uint64_t BytesPerEntry(int level) const {
    return uint64_t{1} << ShiftOf(level);
  }
  constexpr int IndexOf(Gva gva, int level) const {
    const int entries = level == levels ? TopEntries() : EntriesPerTable();
    return static_cast<int>(gva.value() >> ShiftOf(level)) & (entries - 1);
  }
  constexpr uint64_t LargePageBytes() const { return BytesPerEntry(2); }
  // PCIDs exist only in IA-32e mode (SDM vol. 3, 4.10.1).
  constexpr bool HasPcids() const { return levels >= 4; }
  // In PAE paging the processor reads the PDPTEs only when CR3 is loaded (SDM
  // vol. 3, 4.4.1).
  constexpr bool LoadsPdptes() const { return levels == 3; }
  // In the PDPTEs of PAE paging the permission bits are reserved.
  constexpr bool HasPermissions(int level) const {
    return !LoadsPdptes() || level != 3;
  }

  friend constexpr bool operator==(const PagingGeometry& a,
                                   const PagingGeometry& b) {
    return a.name == b.name;
  }

  static const PagingGeometry k32Bit;
  static const PagingGeometry kPae;
  static const PagingGeometry k4Level;
  static const PagingGeometry k5Level;
};

inline constexpr PagingGeometry PagingGeometry::k32Bit = {
    .name = "32-bit",
    .levels = 2,
    .entry_bytes = 4,
    .index_bits = 10,
    .direct_map = Gva(0xc000'0000),
    .user_end = Gva(0xc000'0000),
    .max_memory_bytes = 0x4000'0000};
inline constexpr PagingGeometry PagingGeometry::kPae = {
    .name = "PAE",
    .levels = 3,
    .entry_bytes = 8,
    .index_bits = 9,
    .direct_map = Gva(0xc000'0000),
    .user_end = Gva(0xc000'0000),
    .max_memory_bytes = 0x4000'0000};
inline constexpr PagingGeometry PagingGeometry::k4Level = {
    .name = "4-level",
    .levels = 4,
    .entry_bytes = 8,
    .index_bits = 9,
    .direct_map = Gva(0xffff'8000'0000'0000),
    .user_end = Gva(uint64_t{1} << 47),
    .max_memory_bytes = uint64_t{1} << 46};
inline constexpr PagingGeometry PagingGeometry::k5Level = {
    .name = "5-level",
    .levels = 5,
    .entry_bytes = 8,
    .index_bits = 9,
    .direct_map = Gva(0xff00'0000'0000'0000),
    .user_end = Gva(uint64_t{1} << 56),
    .max_memory_bytes = uint64_t{1} << 52};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PAGING_GEOMETRY_H_
