// A table of which rights suffice for which kind of access.
//
// CR0.WP, SMEP and SMAP change rarely, but accesses are checked often. So the
// rules (SDM vol. 3, 4.6 and 29.3.3.2) are evaluated once: one bit per
// combination of rights for each of 16 kinds of access (SHD-49). Protection
// keys depend on the entry and on PKRU and are checked separately.

#ifndef MMU_CORE_GUEST_PAGING_PERMISSION_TABLE_H_
#define MMU_CORE_GUEST_PAGING_PERMISSION_TABLE_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

// A value.
class PermissionTable {
 public:
  // For legacy tables and NPT, and for EPT.
  static PermissionTable ForLegacy(CpuRole role);
  static PermissionTable ForEpt();

  // Whether the access is denied; does not check protection keys.
  bool Denies(const GuestPageAccess& access, AccessRights rights) const {
    return (denied_[IndexOf(access)] >> rights.bits() & 1) != 0;
  }

  // Whether PKRU forbids a data access to a page that all entries make a user
  // page and whose protection key is `key` (SDM vol. 3, 4.6.2). Always false
  // without CR4.PKE, and for a fetch.
  bool DeniedByKey(const GuestPageAccess& access, AccessRights rights,
                   int key) const;

 private:
  static constexpr unsigned kWrite = 1;
  static constexpr unsigned kUser = 2;
  static constexpr unsigned kFetch = 4;
  static constexpr unsigned kSmapHolds = 8;  // not for a fetch
  static constexpr unsigned kIndices = 16;

  static unsigned IndexOf(const GuestPageAccess& access) {
    const bool user = access.privilege == Privilege::kUser;
    const bool smap = access.privilege == Privilege::kImplicitSupervisor ||
                      (!user && !access.rflags_ac);
    return (access.kind == AccessKind::kWrite ? kWrite : 0) |
           (access.kind == AccessKind::kExec ? kFetch : 0) |
           (user ? kUser : 0) | (smap ? kSmapHolds : 0);
  }

  std::array<uint16_t, kIndices> denied_{};  // bit i: rights with bits() == i
  bool has_keys_ = false;
  bool cr0_wp_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_PERMISSION_TABLE_H_
