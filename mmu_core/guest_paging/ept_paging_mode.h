// EPT as L1 writes it for its L2 guests.

#ifndef MMU_CORE_GUEST_PAGING_EPT_PAGING_MODE_H_
#define MMU_CORE_GUEST_PAGING_EPT_PAGING_MODE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_paging_mode.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

struct EptPaging {
  static constexpr WordSize kWordSize = WordSize::k8;
  static constexpr int kIndexBits = 9;

  static constexpr bool IsPresent(uint64_t e, const GuestEntryOptions& o) {
    return (e & (guest_entry::Bits(0, 2) |
                 (o.mode_based_exec ? guest_entry::kEptUserExec : 0))) != 0;
  }
  static constexpr bool IsLeaf(uint64_t e, int level,
                               const GuestEntryOptions&) {
    return level == 1 || (level <= 3 && (e & guest_entry::kPageSize) != 0);
  }
  // An EPT misconfiguration (SDM vol. 3, 29.3.3.1): reserved bits, write
  // without read, execute without read if not supported, or a memory type that
  // does not exist.
  static constexpr bool HasReservedBits(uint64_t e, int level,
                                        const GuestEntryOptions& o) {
    uint64_t mask = guest_entry::Bits(o.max_phys_bits, 51);
    if (IsLeaf(e, level, o)) {
      mask |= guest_entry::OffsetBits(level, 12);
      const uint64_t type = (e >> guest_entry::kEptMemoryTypeShift) & 7;
      if (type == 2 || type == 3 || type == 7) return true;
    } else {
      mask |= guest_entry::Bits(3, 6);
    }
    if (level > 3 || (level == 3 && !o.has_1g_pages))
      mask |= guest_entry::Bit(7);
    if ((e & guest_entry::kEptRead) == 0 &&
        ((e & guest_entry::kEptWrite) != 0 || !o.exec_only)) {
      return true;
    }
    return (e & mask) != 0;
  }
  static constexpr AccessRights RightsOf(uint64_t e,
                                         const GuestEntryOptions& o) {
    AccessRights rights;
    if ((e & guest_entry::kEptRead) != 0) rights = rights | kMayRead;
    if ((e & guest_entry::kEptWrite) != 0) rights = rights | kMayWrite;
    if ((e & guest_entry::kEptExec) != 0) rights = rights | kMayExec;
    const uint64_t user_exec =
        o.mode_based_exec ? guest_entry::kEptUserExec : guest_entry::kEptExec;
    if ((e & user_exec) != 0) rights = rights | kMayUser;
    return rights;
  }
  static constexpr Gpa AddressOf(uint64_t e, int level,
                                 const GuestEntryOptions& o) {
    return guest_entry::AddressIn(e, IsLeaf(e, level, o), level);
  }
  static constexpr uint64_t AccessedBit(const GuestEntryOptions& o) {
    return o.ad_bits ? guest_entry::kEptAccessed : 0;
  }
  static constexpr uint64_t DirtyBit(const GuestEntryOptions& o) {
    return o.ad_bits ? guest_entry::kEptDirty : 0;
  }
};

static_assert(GuestPagingMode<EptPaging>);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_EPT_PAGING_MODE_H_
