// The four roots below an array of page-directory-pointer entries.
//
// If the shadow tree starts with a PAE array (ROLE-20), entry (address >> 30) &
// 3 points at a shadow page of level 2, and these four pages are counted as
// roots. The table or memory that each of them shadows depends on the guest's
// paging:
//
//   guest      page i
//   4-byte     quadrant i of the guest's one page directory (ROLE-12)
//   PAE        the page directory that PDPTE i points at, if present (ROLE-21)
//   no paging  the gigabyte of guest-physical memory that starts at i GiB
//              (ROLE-22)

#ifndef MMU_CORE_GUEST_PAGING_PAE_ROOTS_H_
#define MMU_CORE_GUEST_PAGING_PAE_ROOTS_H_

#include <array>
#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {

inline constexpr int kPaeRoots = 4;

// A PAE guest's page-directory-pointer entries, as its processor keeps them
// from one load of CR3 to the next (SDM vol. 3, 4.4.1).
using Pdptes = std::array<uint64_t, kPaeRoots>;

// A value: the key under which a shadow page is found (ROLE-01).
struct RootPage {
  Gfn gfn;
  PageRole role;

  friend bool operator==(const RootPage&, const RootPage&) = default;
};

// Page `index` (0..3) of a vCPU with HasPaeRoots(role, root). `table` is the
// gfn of the guest's top table; for a PAE guest `pdptes` are used instead.
// Nullopt if the guest has no page directory at `index`. The caller checks
// whether the gfn is in a memslot.
std::optional<RootPage> PaeRootPage(CpuRole role, PageRole root, Gfn table,
                                    const Pdptes& pdptes, int index);

// Emulates a load of CR3 in PAE mode: reads the entries at bits 31:5 of `cr3`.
// Nullopt if there is no memory or a present entry has reserved bits set; the
// guest then gets a general-protection fault.
std::optional<Pdptes> LoadPdptes(GuestWords& memory, uint64_t cr3,
                                 int max_phys_bits);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_PAE_ROOTS_H_
