// The role of a page-table page: pages with the same gfn and the same role are
// interchangeable; any difference in the role requires another page (ROLE-01).
//
// The bit positions are the project's own; only equality of the word matters.
//
//   bits   field            meaning
//   3:0    level            of the page's entries; 1 maps 4 KiB. 0 stands for
//                           "paging is off" in a CpuRole, never in a page
//   4      has_4_byte_gpte  the guest's table has 4-byte entries
//   6:5    quadrant         which part of such a table (ROLE-12, ROLE-13)
//   7      direct           no guest table behind it; always so in the TDP MMU
//   11:8   access           rights that the guest's entries above grant
//   12     invalid          being torn down, but still referenced as a root
//   13     efer_nx          NX has a meaning in the guest's entries
//   14     cr0_wp           CR0.WP
//   15     smap_andnot_wp   CR4.SMAP without CR0.WP (ROLE-06)
//   16     ad_disabled      the tables have no Accessed and Dirty bits
//   17     guest_mode       belongs to a nested guest (L2)
//   18     passthrough      above the guest's own root (ROLE-30)
//   19     cr4_smep         SMEP; for shadow EPT mode-based execute control
//   31:24  as_id            address space: KVM's smm (TRM-07)

#ifndef MMU_CORE_PAGING_PAGE_ROLE_H_
#define MMU_CORE_PAGING_PAGE_ROLE_H_

#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {

enum class AdBits : uint8_t { kDisabled, kEnabled };

// A value.
class PageRole {
 public:
  // The settings of a role, by name. A value.
  struct Fields {
    int level = 0;
    bool has_4_byte_gpte = false;
    int quadrant = 0;
    bool direct = false;
    AccessRights access = {};
    bool invalid = false;
    bool efer_nx = false;
    bool cr0_wp = false;
    bool smap_andnot_wp = false;
    bool ad_disabled = false;
    bool guest_mode = false;
    bool passthrough = false;
    bool cr4_smep = false;
    int as_id = 0;
  };

  constexpr PageRole() = default;

  // REQUIRES: level <= 5, quadrant <= 3, as_id <= 255.
  static constexpr PageRole Of(const Fields& f) {
    return PageRole(
        static_cast<uint32_t>(f.level) | If(f.has_4_byte_gpte, kHas4ByteGpte) |
        static_cast<uint32_t>(f.quadrant) << kQuadrantShift |
        If(f.direct, kDirect) | f.access.bits() << kAccessShift |
        If(f.invalid, kInvalid) | If(f.efer_nx, kEferNx) |
        If(f.cr0_wp, kCr0Wp) | If(f.smap_andnot_wp, kSmapAndnotWp) |
        If(f.ad_disabled, kAdDisabled) | If(f.guest_mode, kGuestMode) |
        If(f.passthrough, kPassthrough) | If(f.cr4_smep, kCr4Smep) |
        static_cast<uint32_t>(f.as_id) << kAsIdShift);
  }

  // The role of the TDP MMU's tables. It does not depend on the guest's CR0,
  // CR4 and EFER (ROLE-05).
  static constexpr PageRole Direct(Level level, int as_id,
                                   AdBits ad = AdBits::kEnabled) {
    return Of({.level = ToInt(level),
               .direct = true,
               .access = kAllRights,
               .efer_nx = true,
               .cr0_wp = true,
               .ad_disabled = ad == AdBits::kDisabled,
               .as_id = as_id});
  }

  constexpr uint32_t word() const { return word_; }

  // REQUIRES: level_number() is not 0.
  constexpr Level level() const {
    return static_cast<Level>(word_ & kLevelMask);
  }
  constexpr int level_number() const {
    return static_cast<int>(word_ & kLevelMask);
  }
  constexpr bool has_4_byte_gpte() const { return Test(kHas4ByteGpte); }
  constexpr int quadrant() const {
    return static_cast<int>((word_ & kQuadrantMask) >> kQuadrantShift);
  }
  constexpr bool IsDirect() const { return Test(kDirect); }
  constexpr AccessRights access() const {
    return AccessRights((word_ & kAccessMask) >> kAccessShift);
  }
  constexpr bool IsInvalid() const { return Test(kInvalid); }
  constexpr bool efer_nx() const { return Test(kEferNx); }
  constexpr bool cr0_wp() const { return Test(kCr0Wp); }
  constexpr bool smap_andnot_wp() const { return Test(kSmapAndnotWp); }
  constexpr bool ad_disabled() const { return Test(kAdDisabled); }
  constexpr bool guest_mode() const { return Test(kGuestMode); }
  constexpr bool IsPassthrough() const { return Test(kPassthrough); }
  constexpr bool cr4_smep() const { return Test(kCr4Smep); }
  constexpr int as_id() const { return static_cast<int>(word_ >> kAsIdShift); }

  // Whether the page's entries shadow entries of a guest's table. A passthrough
  // page is indirect, too, but shadows no guest table (ROLE-31).
  constexpr bool HasGuestPtes() const {
    return (word_ & (kDirect | kPassthrough)) == 0;
  }

  constexpr Fields fields() const {
    return {.level = level_number(),
            .has_4_byte_gpte = has_4_byte_gpte(),
            .quadrant = quadrant(),
            .direct = IsDirect(),
            .access = access(),
            .invalid = IsInvalid(),
            .efer_nx = efer_nx(),
            .cr0_wp = cr0_wp(),
            .smap_andnot_wp = smap_andnot_wp(),
            .ad_disabled = ad_disabled(),
            .guest_mode = guest_mode(),
            .passthrough = IsPassthrough(),
            .cr4_smep = cr4_smep(),
            .as_id = as_id()};
  }

  // The role of a table below this one in a tree without guest tables
  // (TDP-46). REQUIRES: IsDirect(), level > 1.
  constexpr PageRole Child() const {
    return PageRole((word_ & ~(kLevelMask | kInvalid)) |
                    static_cast<uint32_t>(ToInt(ChildOf(level()))));
  }

  // The role of the page that entry `index` of this page points at, where the
  // guest's entries down to it grant `access` (ROLE-11). Indirect: the child
  // shadows a guest's table; direct: the child maps a part of a page that the
  // guest maps with a larger size (ROLE-09). REQUIRES: level > 1; index < 512.
  constexpr PageRole IndirectChild(AccessRights access, int index) const {
    return ShadowChild(access, index);
  }
  constexpr PageRole DirectChild(AccessRights access, int index) const {
    return PageRole(ShadowChild(access, index).word_ | kDirect);
  }

  // The role of the same page once it is torn down; equal to no role in use
  // (ROLE-10).
  constexpr PageRole Invalidated() const { return PageRole(word_ | kInvalid); }

  friend constexpr bool operator==(PageRole, PageRole) = default;

 private:
  static constexpr uint32_t kLevelMask = 0xf;
  static constexpr uint32_t kHas4ByteGpte = 1u << 4;
  static constexpr int kQuadrantShift = 5;
  static constexpr uint32_t kQuadrantMask = 3u << kQuadrantShift;
  static constexpr uint32_t kDirect = 1u << 7;
  static constexpr int kAccessShift = 8;
  static constexpr uint32_t kAccessMask = 15u << kAccessShift;
  static constexpr uint32_t kInvalid = 1u << 12;
  static constexpr uint32_t kEferNx = 1u << 13;
  static constexpr uint32_t kCr0Wp = 1u << 14;
  static constexpr uint32_t kSmapAndnotWp = 1u << 15;
  static constexpr uint32_t kAdDisabled = 1u << 16;
  static constexpr uint32_t kGuestMode = 1u << 17;
  static constexpr uint32_t kPassthrough = 1u << 18;
  static constexpr uint32_t kCr4Smep = 1u << 19;
  static constexpr int kAsIdShift = 24;
  // All bits that distinguish pages of one address space.
  static constexpr uint32_t kPageBits = (1u << 20) - 1;
  static_assert((kLevelMask + kHas4ByteGpte + kQuadrantMask + kDirect +
                 kAccessMask + kInvalid + kEferNx + kCr0Wp + kSmapAndnotWp +
                 kAdDisabled + kGuestMode + kPassthrough + kCr4Smep) ==
                    kPageBits,
                "fields overlap, or one is missing in the sum of ROLE-42");

  constexpr explicit PageRole(uint32_t word) : word_(word) {}

  static constexpr uint32_t If(bool set, uint32_t bit) { return set ? bit : 0; }
  constexpr bool Test(uint32_t bit) const { return (word_ & bit) != 0; }

  constexpr PageRole ShadowChild(AccessRights access, int index) const {
    uint32_t word = word_ & ~(kLevelMask | kQuadrantMask | kDirect |
                              kAccessMask | kInvalid | kPassthrough);
    word |= static_cast<uint32_t>(ToInt(ChildOf(level())));
    word |= access.bits() << kAccessShift;
    // The entries of a 4-byte guest table fill two shadow pages; bit 21 of the
    // address selects the page (ROLE-13).
    if (has_4_byte_gpte()) {
      word |= static_cast<uint32_t>(index & 1) << kQuadrantShift;
    }
    return PageRole(word);
  }

  uint32_t word_ = 0;
};
static_assert(sizeof(PageRole) == 4);

// The maximum number of pages above level 1 that can shadow guest tables at one
// gfn of one address space. Each of them write-tracks the gfn, and the count of
// trackers has 16 bits (ROLE-40). Level-1 pages do not count: they may become
// unsync instead.
//
// The address space is left out because a gfn is tracked per memslot; `invalid`
// is left out because invalid pages give up tracking. Of the 20 bits, 19
// remain:
//
//   level, has_4_byte_gpte, quadrant   a 4-byte guest has tracked pages at
//                                      level 2 only, in four quadrants; other
//                                      guests at the levels 2..5
//   access                             the right to read is a field of its own
//                                      only without 4-byte entries (EPT)
//   ad_disabled                        only without 4-byte entries (EPT)
//   cr0_wp, smap_andnot_wp             three combinations (ROLE-06)
//   direct, passthrough, efer_nx,      two values each; the first two are
//   guest_mode, cr4_smep               counted although such pages track
//                                      nothing
//
// A new field of the role must be added to this sum (ROLE-42).
constexpr uint32_t MaxTrackedPagesPerGfn() {
  constexpr uint32_t kWriteProtectCombinations = 3;
  constexpr uint32_t kFlags = 1u << 5;
  constexpr uint32_t kWith4ByteGptes = /*level*/ 1 * /*quadrant*/ 4 *
                                       /*access*/ (1u << 3);
  constexpr uint32_t kWithout =
      /*level*/ 4 * /*access*/ (1u << 4) * /*ad_disabled*/ 2;
  return (kWith4ByteGptes + kWithout) * kWriteProtectCombinations * kFlags;
}
static_assert(MaxTrackedPagesPerGfn() < (1u << 16),
              "a count of tracked pages at one gfn may overflow (ROLE-40)");

}  // namespace mmu

#endif  // MMU_CORE_PAGING_PAGE_ROLE_H_
