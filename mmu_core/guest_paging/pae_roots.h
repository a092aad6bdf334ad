// The four roots below an array of page-directory-pointer entries.
//
// Where the shadow tree starts with a PAE array (ROLE-20), entry (address >>
// 30) & 3 leads to a shadow page of level 2, and these four are the pages that
// are counted as roots. What they stand for depends on the guest:
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

// A value: by this a shadow page is found (ROLE-01).
struct RootPage {
  Gfn gfn;
  PageRole role;

  friend bool operator==(const RootPage&, const RootPage&) = default;
};

// Page `index` (0..3) of a vCPU with HasPaeRoots(role, root). `table` is the
// gfn of the guest's top table; a PAE guest's is not looked at, `pdptes` are.
// None if the guest has no page directory there. Whether the gfn is in a
// memslot is for the caller to see.
std::optional<RootPage> PaeRootPage(CpuRole role, PageRole root, Gfn table,
                                    const Pdptes& pdptes, int index);

// What a load of CR3 in PAE mode does: reads the entries at bits 31:5 of
// `cr3`. None if there is no memory or a present entry has reserved bits set;
// the guest gets a general-protection fault then.
std::optional<Pdptes> LoadPdptes(GuestWords& memory, uint64_t cr3,
                                 int max_phys_bits);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_PAE_ROOTS_H_
