// Walks a guest's own page tables as its processor would: the first half of a
// shadow MMU's fault handling.
//
//   address --[the guest's tables, in the guest's memory]--> gfn, rights, level
//                                                         or the guest's fault
//
// The walk reads entries, combines their rights, and sets Accessed and Dirty
// bits as hardware does: each by one compare-exchange, so that an entry that
// the guest changes meanwhile is never overwritten. It changes none of the
// host's tables and takes no lock. The guest may edit its tables between the
// walk and the use of its result, so each step of the result has the data
// needed to read the entry again.
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
#include "mmu_core/paging/access_rights.h"

namespace mmu {

// The owner of the tables that a role describes.
enum class GuestTables : uint8_t {
  kLegacy,  // a guest's own: LegacyCpuRole; page faults
  kEpt,     // L1's EPT: EptCpuRole
  kNpt,     // L1's NPT: NptCpuRole
};

// The properties of the guest's processor. A value.
struct GuestCpuid {
  int max_phys_bits = 46;  // MAXPHYADDR, 36..52
  bool has_1g_pages = true;
};

// Made when a vCPU's role changes and used for all its walks. A value; walks
// may run concurrently.
class GuestWalker {
 public:
  GuestWalker() = default;  // for a vCPU with paging off
  GuestWalker(GuestTables tables, CpuRole role, const GuestCpuid& cpu);

  // Translates `address`: for kLegacy a linear address, whose untranslated high
  // bits are ignored; otherwise a guest-physical address of L2. Paging off: the
  // address itself, with all rights.
  //
  // If the access is allowed, sets Accessed in each used entry and, for a
  // write, Dirty in the leaf (SHD-47). Starts over if the guest changes an
  // entry between its read and the setting of its bit. A table in a read-only
  // memslot is not changed. A table outside of all memslots gives a fault
  // without P, like an entry that is not present (ROLE-24).
  //
  // May be called with any lock held that `memory` allows.
  GuestWalkResult Walk(GuestWords& memory, const GuestRoot& root,
                       uint64_t address, const GuestPageAccess& access) const;

  // The fault of an access that these rights of a present page deny
  // (permissions()).
  GuestFault DeniedFault(const GuestPageAccess& access,
                         AccessRights rights) const {
    return FaultOf(access, kPferrPresent, rights);
  }

  GuestTables tables() const { return tables_; }
  CpuRole role() const { return role_; }
  const PermissionTable& permissions() const { return permissions_; }

  // Decodes an entry that is read again after a walk (SHD-33, SHD-50, SHD-53).
  // REQUIRES: paging is on; level 1..5, not a PDPTE.
  struct EntryInfo {
    bool present = false;
    bool reserved = false;  // if set, or not present, the rest is unset
    bool leaf = false;
    bool accessed = false;  // of a leaf; true if the tables have no such bit
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
  // Returns false if the guest changed an entry: start over.
  template <GuestPagingMode Mode>
  bool TryWalk(GuestWords& memory, const GuestRoot& root, uint64_t address,
               const GuestPageAccess& access, GuestWalkResult& result) const;
  enum class AdUpdate : uint8_t {
    kDone,      // all bits are set, as far as allowed
    kChanged,   // the guest changed an entry, start over
    kRingFull,  // as in GuestWalkResult::Kind
  };
  template <GuestPagingMode Mode>
  AdUpdate SetAccessedAndDirty(GuestWords& memory,
                               const GuestPageAccess& access,
                               GuestWalkResult& result) const;

  // Calls fn.operator()<Mode>() with the role's mode.
  template <typename Fn>
  auto WithMode(Fn fn) const;

  // `rights`: those of all entries read; none if an entry was not present.
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
