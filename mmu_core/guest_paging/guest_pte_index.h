// The correspondence between the SPTEs of a shadow page and the entries of the
// guest's table that the page shadows.
//
// With eight-byte entries SPTE i shadows entry i. A four-byte guest's table has
// 1024 entries; at level 2 each maps twice as much as an SPTE:
//
//   page directory, 4 GiB   -> 4 shadow pages of level 2, two SPTEs per entry
//   page table, 4 MiB       -> 2 shadow pages of level 1, one SPTE per entry
//
// The quadrant distinguishes the shadow pages of one guest table (ROLE-12,
// ROLE-13).

#ifndef MMU_CORE_GUEST_PAGING_GUEST_PTE_INDEX_H_
#define MMU_CORE_GUEST_PAGING_GUEST_PTE_INDEX_H_

#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {

// A value: `count` SPTEs from `first` on, all in one table.
struct SpteIndices {
  int first = 0;
  int count = 1;

  friend bool operator==(const SpteIndices&, const SpteIndices&) = default;
};

// The guest's entry that SPTE `spte_index` (0..511) of a page with `role`
// shadows (ROLE-15). REQUIRES: role.HasGuestPtes().
constexpr int GuestPteIndex(PageRole role, int spte_index) {
  if (!role.has_4_byte_gpte()) return spte_index;
  const int extended = (role.quadrant() << kEntryBits) + spte_index;
  return role.level() == Level::k2M ? extended / 2 : extended;
}

// The SPTEs of a page with `role` that shadow the guest's entry at byte
// `offset` of its table; nullopt if another quadrant has them (ROLE-14).
// REQUIRES: role.HasGuestPtes(); offset < 4096.
constexpr std::optional<SpteIndices> SptesOfGuestPte(PageRole role,
                                                     uint64_t offset) {
  SpteIndices result;
  if (!role.has_4_byte_gpte()) {
    result.first = static_cast<int>(offset / 8);
    return result;
  }
  // The byte offset of the SPTE if all quadrants were contiguous.
  uint64_t shifted = offset / 4 * 8;
  if (role.level() == Level::k2M) {
    shifted *= 2;
    result.count = 2;
  }
  if (static_cast<int>(shifted >> kPageShift) != role.quadrant()) {
    return std::nullopt;
  }
  result.first = static_cast<int>((shifted & kPageMask) / 8);
  return result;
}

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_GUEST_PTE_INDEX_H_
