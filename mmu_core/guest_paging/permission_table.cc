#include "mmu_core/guest_paging/permission_table.h"

#include "mmu_core/base/access.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {
namespace {

// PKRU has two bits per key.
constexpr uint32_t kAccessDisable = 1;
constexpr uint32_t kWriteDisable = 2;

}  // namespace

PermissionTable PermissionTable::ForLegacy(CpuRole role) {
  PermissionTable table;
  table.has_keys_ = role.cr4_pke();
  table.cr0_wp_ = role.base().cr0_wp();
  const bool smep = role.base().cr4_smep();
  const bool smap = role.cr4_smap();
  for (unsigned index = 0; index < kIndices; ++index) {
    const bool write = (index & kWrite) != 0;
    const bool user = (index & kUser) != 0;
    const bool fetch = (index & kFetch) != 0;
    for (uint32_t bits = 0; bits < 1u << AccessRights::kBits; ++bits) {
      const AccessRights rights(bits);
      const bool user_page = rights.Has(kMayUser);
      const bool denied =
          !rights.Has(kMayRead) || (user && !user_page) ||
          (fetch && !rights.Has(kMayExec)) ||
          (write && !rights.Has(kMayWrite) && (user || table.cr0_wp_)) ||
          (smep && fetch && !user && user_page) ||
          (smap && !fetch && !user && user_page && (index & kSmapHolds) != 0);
      if (denied) table.denied_[index] |= static_cast<uint16_t>(1u << bits);
    }
  }
  return table;
}

PermissionTable PermissionTable::ForEpt() {
  PermissionTable table;
  for (unsigned index = 0; index < kIndices; ++index) {
    // Without mode-based execute control both kinds of fetch need the same bit;
    // see EptPaging::RightsOf.
    AccessRights needed = kMayRead;
    if ((index & kWrite) != 0) needed = kMayWrite;
    if ((index & kFetch) != 0) {
      needed = (index & kUser) != 0 ? kMayUser : kMayExec;
    }
    for (uint32_t bits = 0; bits < 1u << AccessRights::kBits; ++bits) {
      if (!AccessRights(bits).Has(needed)) {
        table.denied_[index] |= static_cast<uint16_t>(1u << bits);
      }
    }
  }
  return table;
}

bool PermissionTable::DeniedByKey(const GuestPageAccess& access,
                                  AccessRights rights, int key) const {
  if (!has_keys_ || access.kind == AccessKind::kExec || !rights.Has(kMayUser)) {
    return false;
  }
  const uint32_t disabled = access.pkru >> (2 * key);
  if ((disabled & kAccessDisable) != 0) return true;
  return access.kind == AccessKind::kWrite && (disabled & kWriteDisable) != 0 &&
         (access.privilege == Privilege::kUser || cr0_wp_);
}

}  // namespace mmu
