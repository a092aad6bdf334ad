// How to read the entries of a guest's tables: one struct per paging mode.
//
//   mode              entry    per table  levels  manual
//   TwoLevelPaging    4 bytes  1024       2       SDM vol. 3, 4.3
//   PaePaging         8 bytes  512        2 + 4   SDM vol. 3, 4.4
//                                         PDPTEs
//   FourLevelPaging   8 bytes  512        4       SDM vol. 3, 4.5
//   FiveLevelPaging   8 bytes  512        5       SDM vol. 3, 4.5
//   EptPaging         8 bytes  512        4, 5    SDM vol. 3, 29.3
//   NptPaging         8 bytes  512        4, 5    APM vol. 2, 5.3 and 15.25
//
// L1's NPT may also have two or three levels; it then uses the formats of
// TwoLevelPaging and PaePaging.
//
// A mode defines entries, not walks or faults. Only
// guest_paging/guest_walker.cc uses modes, as a template argument; other code
// uses GuestWalker. The modes are in guest_paging/legacy_paging_modes.h and
// guest_paging/ept_paging_mode.h.

#ifndef MMU_CORE_GUEST_PAGING_GUEST_PAGING_MODE_H_
#define MMU_CORE_GUEST_PAGING_GUEST_PAGING_MODE_H_

#include <concepts>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

// The settings besides the mode on which the meaning of an entry depends. A
// value.
struct GuestEntryOptions {
  int max_phys_bits = 52;        // the guest's MAXPHYADDR
  bool has_1g_pages = true;      // the processor supports 1 GiB pages
  bool nx = false;               // EFER.NX
  bool pse = false;              // CR4.PSE; TwoLevelPaging
  bool ad_bits = true;           // EPT: EPTP bit 6
  bool exec_only = false;        // EPT: execute without read is supported
  bool mode_based_exec = false;  // EPT: bit 10 is user execute
};

// `level` counts from 1, the level of 4 KiB pages; `e` is zero-extended.
template <typename M>
concept GuestPagingMode = requires(uint64_t e, int level,
                                   const GuestEntryOptions& o) {
  { M::kWordSize } -> std::convertible_to<WordSize>;
  // The number of address bits that one level translates.
  { M::kIndexBits } -> std::convertible_to<int>;
  { M::IsPresent(e, o) } -> std::same_as<bool>;
  // Whether a present entry maps a page.
  { M::IsLeaf(e, level, o) } -> std::same_as<bool>;
  // Whether a present entry has reserved bits, or a reserved combination of
  // bits.
  { M::HasReservedBits(e, level, o) } -> std::same_as<bool>;
  // The rights that a present entry without reserved bits grants; NX is a
  // missing right.
  { M::RightsOf(e, o) } -> std::same_as<AccessRights>;
  // The address of the page or table that the entry points at.
  { M::AddressOf(e, level, o) } -> std::same_as<Gpa>;
  // The Accessed bit of all entries and the Dirty bit of leafs; 0 if the mode
  // has none.
  { M::AccessedBit(o) } -> std::same_as<uint64_t>;
  { M::DirtyBit(o) } -> std::same_as<uint64_t>;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_GUEST_PAGING_MODE_H_
