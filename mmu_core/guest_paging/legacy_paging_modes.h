// The paging modes of x86 guests, and of NPT, which uses the same format.

#ifndef MMU_CORE_GUEST_PAGING_LEGACY_PAGING_MODES_H_
#define MMU_CORE_GUEST_PAGING_LEGACY_PAGING_MODES_H_

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_paging_mode.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

struct TwoLevelPaging {
  static constexpr WordSize kWordSize = WordSize::k4;
  static constexpr int kIndexBits = 10;

  static constexpr bool IsPresent(uint64_t e, const GuestEntryOptions&) {
    return (e & guest_entry::kPresent) != 0;
  }
  // PS has a meaning only with CR4.PSE: a 4 MiB page.
  static constexpr bool IsLeaf(uint64_t e, int level,
                               const GuestEntryOptions& o) {
    return level == 1 || (o.pse && (e & guest_entry::kPageSize) != 0);
  }
  // PSE-36: bits 20:13 of a large page's entry are address bits 39:32, as far
  // as the processor has these address bits; the remaining bits up to 21 are
  // reserved.
  static constexpr bool HasReservedBits(uint64_t e, int level,
                                        const GuestEntryOptions& o) {
    if (level == 1 || !IsLeaf(e, level, o)) return false;
    const int high_bits = std::clamp(o.max_phys_bits - 32, 0, 8);
    return (e & guest_entry::Bits(13 + high_bits, 21)) != 0;
  }
  static constexpr AccessRights RightsOf(uint64_t e, const GuestEntryOptions&) {
    return guest_entry::LegacyRights(e);  // bit 63 is never set: no NX
  }
  static constexpr Gpa AddressOf(uint64_t e, int level,
                                 const GuestEntryOptions& o) {
    if (level == 1 || !IsLeaf(e, level, o)) {
      return Gpa(e & guest_entry::Bits(12, 31));
    }
    return Gpa((e & guest_entry::Bits(22, 31)) |
               (e & guest_entry::Bits(13, 20)) >> 13 << 32);
  }
  static constexpr uint64_t AccessedBit(const GuestEntryOptions&) {
    return guest_entry::kAccessed;
  }
  static constexpr uint64_t DirtyBit(const GuestEntryOptions&) {
    return guest_entry::kDirty;
  }
};

// The common part of the three kinds of eight-byte legacy tables.
struct LongEntries {
  static constexpr WordSize kWordSize = WordSize::k8;
  static constexpr int kIndexBits = 9;

  static constexpr bool IsPresent(uint64_t e, const GuestEntryOptions&) {
    return (e & guest_entry::kPresent) != 0;
  }
  static constexpr bool IsLeaf(uint64_t e, int level,
                               const GuestEntryOptions&) {
    return level == 1 || (level <= 3 && (e & guest_entry::kPageSize) != 0);
  }
  static constexpr AccessRights RightsOf(uint64_t e, const GuestEntryOptions&) {
    return guest_entry::LegacyRights(e);
  }
  static constexpr Gpa AddressOf(uint64_t e, int level,
                                 const GuestEntryOptions& o) {
    return guest_entry::AddressIn(e, IsLeaf(e, level, o), level);
  }
  static constexpr uint64_t AccessedBit(const GuestEntryOptions&) {
    return guest_entry::kAccessed;
  }
  static constexpr uint64_t DirtyBit(const GuestEntryOptions&) {
    return guest_entry::kDirty;
  }

  // The reserved bits, without those above the address.
  static constexpr uint64_t ReservedMask(uint64_t e, int level,
                                         const GuestEntryOptions& o) {
    uint64_t mask = guest_entry::Bits(o.max_phys_bits, 51);
    if (!o.nx) mask |= guest_entry::kNx;
    // Bit 7 is reserved at levels without leafs. Bit 12 of a large leaf is PAT.
    if (level > 3 || (level == 3 && !o.has_1g_pages)) {
      mask |= guest_entry::kPageSize;
    }
    if (level > 1 && IsLeaf(e, level, o)) {
      mask |= guest_entry::OffsetBits(level, 13);
    }
    return mask;
  }
};

// The tables below the PDPTEs. The PDPTEs themselves are not read during a
// walk: the processor keeps them (guest_paging/pae_roots.h).
struct PaePaging : LongEntries {
  static constexpr bool HasReservedBits(uint64_t e, int level,
                                        const GuestEntryOptions& o) {
    return (e & (ReservedMask(e, level, o) | guest_entry::Bits(52, 62))) != 0;
  }

  static constexpr bool IsPresentPdpte(uint64_t e) {
    return (e & guest_entry::kPresent) != 0;
  }
  // For a present PDPTE; others have no reserved bits.
  static constexpr bool HasReservedPdpteBits(uint64_t e, int max_phys_bits) {
    return IsPresentPdpte(e) &&
           (e & (guest_entry::Bits(1, 2) | guest_entry::Bits(5, 8) |
                 guest_entry::Bits(max_phys_bits, 63))) != 0;
  }
  static constexpr Gpa AddressOfPdpte(uint64_t e) {
    return Gpa(e & guest_entry::kAddress);
  }
};

struct FourLevelPaging : LongEntries {
  static constexpr bool HasReservedBits(uint64_t e, int level,
                                        const GuestEntryOptions& o) {
    return (e & ReservedMask(e, level, o)) != 0;
  }
};

// The same with one more level.
struct FiveLevelPaging : FourLevelPaging {};

// Intel ignores bit 8 in non-leaf entries; AMD reserves it at the top levels.
struct NptPaging : LongEntries {
  static constexpr bool HasReservedBits(uint64_t e, int level,
                                        const GuestEntryOptions& o) {
    const uint64_t top = level > 3 ? guest_entry::kGlobal : 0;
    return (e & (ReservedMask(e, level, o) | top)) != 0;
  }
};

static_assert(GuestPagingMode<TwoLevelPaging>);
static_assert(GuestPagingMode<PaePaging>);
static_assert(GuestPagingMode<FourLevelPaging>);
static_assert(GuestPagingMode<FiveLevelPaging>);
static_assert(GuestPagingMode<NptPaging>);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_LEGACY_PAGING_MODES_H_
