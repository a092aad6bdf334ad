// What code over page tables must know of a kind of them, so that it can be
// written once: the walk (paging/page_table_cursor.h), the place of an entry
// (paging/entry_slot.h) and the table (paging/entry_table.h) are templates.
// Each instance is compiled for its kind alone and asks nothing at run time.
//
// A kind of page tables has
//   a geometry  sizes and levels                 base/table_geometry.h
//   an entry    a value of 64 bits               PageTableEntry
//   a link      which table an entry points at   PagingTraits
//
// x86 has one kind: paging/spte.h is its entry, paging/tdp_cursor.h has its
// traits. No walk asks what differs between EPT and NPT, so that is data
// (paging/spte_format.h) and not traits.

#ifndef MMU_CORE_PAGING_PAGING_TRAITS_H_
#define MMU_CORE_PAGING_PAGING_TRAITS_H_

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "mmu_core/base/table_geometry.h"

namespace mmu {

template <TableGeometry Geometry, typename Entry>
struct EntryTable;

// A value; it never changes. E() is an entry that was never used: it is what
// every entry of a new table is, and need not be 0.
template <typename E>
concept PageTableEntry = std::regular<E> && std::is_trivially_copyable_v<E> &&
                             sizeof(E) == 8 &&
                         std::constructible_from<E, uint64_t> &&
                         !std::convertible_to<uint64_t, E> &&
                         requires(const E entry, Level level) {
  // What stands in the table; E(entry.bits()) == entry.
  { entry.bits() } -> std::same_as<uint64_t>;
  // In use by the MMU. Not the same as "the hardware may access it", and
  // false for E() and for a frozen entry.
  { entry.IsPresent() } -> std::same_as<bool>;
  // Of a table that is being taken apart: nobody but its owner may replace
  // it, and the hardware sees nothing in it.
  { entry.IsFrozen() } -> std::same_as<bool>;
  // An entry that is present maps memory or points at a table; exactly one
  // of the two is then true. At level 1 every present entry is a leaf,
  // whatever its bits would say at another level.
  { entry.IsPresentLeaf(level) } -> std::same_as<bool>;
  { entry.IsPresentTable(level) } -> std::same_as<bool>;
};

// One struct per kind of page tables.
template <typename T>
concept PagingTraits = TableGeometry<typename T::Geometry> &&
    PageTableEntry<typename T::Entry> && requires(typename T::Entry entry) {
  // The table that a present entry that is no leaf points at.
  {
    T::TableOf(entry)
    } -> std::same_as<EntryTable<typename T::Geometry, typename T::Entry>*>;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_PAGING_TRAITS_H_
