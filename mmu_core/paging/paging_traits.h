// The properties of a kind of page tables on which generic code depends. The
// walk (paging/page_table_cursor.h), the entry slot (paging/entry_slot.h) and
// the table (paging/entry_table.h) are templates over them. Each instance is
// compiled for one kind, with no run-time dispatch.
//
// A kind of page tables has
//   a geometry  sizes and levels                 base/table_geometry.h
//   an entry    a value of 64 bits               PageTableEntry
//   a link      the table that an entry points at PagingTraits
//
// x86 has one kind: its entry is paging/spte.h, its traits are in
// paging/tdp_cursor.h. The differences between EPT and NPT do not concern a
// walk, so they are data (paging/spte_format.h) and not traits.

#ifndef MMU_CORE_PAGING_PAGING_TRAITS_H_
#define MMU_CORE_PAGING_PAGING_TRAITS_H_

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "mmu_core/base/table_geometry.h"

namespace mmu {

template <TableGeometry Geometry, typename Entry>
struct EntryTable;

// An immutable value. E() is the never-used entry, which fills every new table;
// its bits need not be 0.
template <typename E>
concept PageTableEntry = std::regular<E> && std::is_trivially_copyable_v<E> &&
                             sizeof(E) == 8 &&
                         std::constructible_from<E, uint64_t> &&
                         !std::convertible_to<uint64_t, E> &&
                         requires(const E entry, Level level) {
  // The bits in the table; E(entry.bits()) == entry.
  { entry.bits() } -> std::same_as<uint64_t>;
  // The MMU uses the entry. This does not mean that the hardware may access it.
  // False for E() and for a frozen entry.
  { entry.IsPresent() } -> std::same_as<bool>;
  // The entry's table is being torn down: only the thread that does so may
  // replace the entry, and the hardware sees no mapping in it.
  { entry.IsFrozen() } -> std::same_as<bool>;
  // A present entry is either a leaf, which maps memory, or a pointer to a
  // table. At level 1 every present entry is a leaf, even if its bits would
  // mean a table at another level.
  { entry.IsPresentLeaf(level) } -> std::same_as<bool>;
  { entry.IsPresentTable(level) } -> std::same_as<bool>;
};

// One struct per kind of page tables.
template <typename T>
concept PagingTraits = TableGeometry<typename T::Geometry> &&
    PageTableEntry<typename T::Entry> && requires(typename T::Entry entry) {
  // The table that a present non-leaf entry points at.
  {
    T::TableOf(entry)
    } -> std::same_as<EntryTable<typename T::Geometry, typename T::Entry>*>;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_PAGING_TRAITS_H_
