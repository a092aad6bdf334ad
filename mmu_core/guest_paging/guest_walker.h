// Walks a guest's own page tables, as its processor would: the first half of
// what a shadow MMU does on a fault.
//
//   address --[the guest's tables, in the guest's memory]--> gfn, rights, level
//                                                         or the guest's fault
//
// It reads entries, combines what they grant, and sets Accessed and Dirty bits
// as hardware does: in one compare-exchange each, so that an entry that the
// guest changes meanwhile is never overwritten. It changes nothing of ours and
// takes no lock; between the walk and what is made of it the guest may edit its
// tables, so each step of the result has what is needed to look again.
//
// Next: guest_paging/guest_paging_mode.h for entries,
// guest_paging/permission_table.h for rights.

#ifndef MMU_CORE_GUEST_PAGING_GUEST_WALKER_H_
#define MMU_CORE_GUEST_PAGING_GUEST_WALKER_H_

#include <cstdint>

#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_paging_mode.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu {

// Whose tables a role describes.
enum class GuestTables : uint8_t {
  kLegacy,  // a guest's own: LegacyCpuRole. Faults are page faults
  kEpt,     // L1's EPT: EptCpuRole
  kNpt,     // L1's NPT: NptCpuRole
};

// What the guest's processor is like. A value.
struct GuestCpuid {
  int max_phys_bits = 46;  // MAXPHYADDR, 36..52
  bool has_1g_pages = true;
};

// Made when a vCPU's role changes, used for all its walks. A value; walks may
// run side by side.
class GuestWalker {
 public:
  GuestWalker() = default;  // of a vCPU whose paging is off
  GuestWalker(GuestTables tables, CpuRole role, const GuestCpuid& cpu);

  // Translates `address`: a linear address for kLegacy, of which the bits that
  // the mode does not translate are ignored; a guest-physical address of L2
  // otherwise. Paging off: the address itself, with all rights.
  //
  // Sets Accessed in each entry it used and, for a write, Dirty in the leaf,
  // if the access is allowed (SHD-47). Starts over if the guest changes an
  // entry between its read and that. A table in a read-only memslot is left
  // as it is. A table outside of all memslots is a fault without P, as an entry
  // that is not present (ROLE-24).
  //
  // May be called with any lock held that `memory` allows.
  GuestWalkResult Walk(GuestWords& memory, const GuestRoot& root,
                       uint64_t address, const GuestPageAccess& access) const;

  GuestTables tables() const { return tables_; }
  CpuRole role() const { return role_; }
  const PermissionTable& permissions() const { return permissions_; }

  // For whoever reads an entry again after a walk (SHD-33, SHD-50, SHD-53): is
  // it present, without reserved bits, accessed; what does it grant and where
  // does it lead. REQUIRES: paging is on; level 1..5, not a PDPTE.
  struct EntryInfo {
    bool present = false;
    bool reserved = false;  // the rest is not set if it is, or not present
    bool leaf = false;
    bool accessed = false;  // true if the tables have no such bit
    bool dirty = false;     // of a leaf; true if there is no such bit
    AccessRights rights;    // of this entry alone
    Gfn gfn;                // of the page or table
  };
  EntryInfo Decode(uint64_t entry, int level) const;
  // The size of one entry.
  WordSize entry_size() const {
    return role_.base().has_4_byte_gpte() ? WordSize::k4 : WordSize::k8;
  }

 private:
  template <GuestPagingMode Mode>
  GuestWalkResult WalkIn(GuestWords& memory, const GuestRoot& root,
                         uint64_t address, GuestPageAccess access) const;
  // False: the guest changed an entry, start over.
  template <GuestPagingMode Mode>
  bool TryWalk(GuestWords& memory, const GuestRoot& root, uint64_t address,
               const GuestPageAccess& access, GuestWalkResult& result) const;
  enum class AdUpdate : uint8_t {
    kDone,      // all bits are set that can be
    kChanged,   // the guest changed an entry, start over
    kRingFull,  // as GuestWalkResult::Kind
  };
  template <GuestPagingMode Mode>
  AdUpdate SetAccessedAndDirty(GuestWords& memory,
                               const GuestPageAccess& access,
                               GuestWalkResult& result) const;

  // Calls fn.operator()<Mode>() with the mode of the role.
  template <typename Fn>
  auto WithMode(Fn fn) const;

  // `rights`: of all entries that were read, none if one was not present.
  GuestFault FaultOf(const GuestPageAccess& access, uint64_t pferr,
                     AccessRights rights) const;
  GuestWalkResult WithoutPaging(uint64_t address) const;

  GuestTables tables_ = GuestTables::kLegacy;
  CpuRole role_;
  GuestEntryOptions options_;
  PermissionTable permissions_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_GUEST_WALKER_H_
