// The paging mode of a vCPU in one word, and the role of the root that follows
// from it.
//
//   GuestPagingState -> CpuRole            how to read the guest's own tables
//   CpuRole          -> PageRole of a root the depth of our tables over them
//
//   the vCPU runs                 CpuRole        root
//   a guest, TDP                  LegacyCpuRole  TdpRootRole
//   a guest, its tables shadowed  LegacyCpuRole  ShadowRootRole
//   L2 on L1's EPT                EptCpuRole     ShadowEptRootRole
//   L2 on L1's NPT                NptCpuRole     ShadowNptRootRole
//
// An MMU is set up again only if one of the two words has changed (ROLE-02).
// Next: guest_paging/pae_roots.h, guest_paging/guest_walker.h.

#ifndef MMU_CORE_GUEST_PAGING_CPU_ROLE_H_
#define MMU_CORE_GUEST_PAGING_CPU_ROLE_H_

#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {

// KVM's cpu role: the page role that the guest's own root would have, plus the
// extended role: properties that the MMU's set-up depends on but no page does.
// A value; the default is equal to no vCPU's role.
class CpuRole {
 public:
  // The extended role.
  struct Extension {
    bool exec_only = false;  // EPT: entries may grant execute alone
    bool cr4_pse = false;
    bool cr4_pke = false;  // in long mode only
    bool cr4_smap = false;
    bool cr4_la57 = false;  // in long mode only
    bool efer_lma = false;
    bool pferr_fetch = false;  // error codes tell fetches apart
  };

  constexpr CpuRole() = default;
  // Makes a valid role.
  constexpr CpuRole(PageRole base, const Extension& e)
      : base_(base),
        extension_(kValid | If(e.exec_only, kExecOnly) |
                   If(e.cr4_pse, kCr4Pse) | If(e.cr4_pke, kCr4Pke) |
                   If(e.cr4_smap, kCr4Smap) | If(e.cr4_la57, kCr4La57) |
                   If(e.efer_lma, kEferLma) | If(e.pferr_fetch, kPferrFetch)) {}

  constexpr uint64_t word() const {
    return base_.word() | uint64_t{extension_} << 32;
  }
  constexpr PageRole base() const { return base_; }
  // The number of levels of the guest's tables; 0: its paging is off.
  constexpr int guest_level() const { return base_.level_number(); }

  // True in every role but the default one.
  constexpr bool IsValid() const { return Test(kValid); }
  constexpr bool exec_only() const { return Test(kExecOnly); }
  constexpr bool cr4_pse() const { return Test(kCr4Pse); }
  constexpr bool cr4_pke() const { return Test(kCr4Pke); }
  constexpr bool cr4_smap() const { return Test(kCr4Smap); }
  constexpr bool cr4_la57() const { return Test(kCr4La57); }
  constexpr bool efer_lma() const { return Test(kEferLma); }
  constexpr bool pferr_fetch() const { return Test(kPferrFetch); }

  friend constexpr bool operator==(CpuRole, CpuRole) = default;

 private:
  static constexpr uint32_t kValid = 1u << 0;
  static constexpr uint32_t kExecOnly = 1u << 1;
  static constexpr uint32_t kCr4Pse = 1u << 2;
  static constexpr uint32_t kCr4Pke = 1u << 3;
  static constexpr uint32_t kCr4Smap = 1u << 4;
  static constexpr uint32_t kCr4La57 = 1u << 5;
  static constexpr uint32_t kEferLma = 1u << 6;
  static constexpr uint32_t kPferrFetch = 1u << 7;

  static constexpr uint32_t If(bool set, uint32_t bit) { return set ? bit : 0; }
  constexpr bool Test(uint32_t bit) const { return (extension_ & bit) != 0; }

  PageRole base_;
  uint32_t extension_ = 0;
};

// L1's choices in its EPTP and controls, and the features of its processor (SDM
// vol. 3, 25.6.11 and appendix A.10). A value.
struct EptOptions {
  Level root_level = Level::k512G;  // or k256T
  bool ad_bits = false;             // EPTP bit 6
  bool exec_only = false;           // execute-only entries are supported
  bool mode_based_exec = false;     // bit 10 of an entry is user execute
};

// The role of `state`; also for an L2 guest's own tables (ROLE-03).
CpuRole LegacyCpuRole(const GuestPagingState& state);

// The role of L2 on L1's EPT (ROLE-08). `as_id` as in GuestPagingState.
CpuRole EptCpuRole(const EptOptions& options, int as_id);

// The role of L2 on L1's NPT, whose format follows from L1's own CR4 and EFER
// (APM vol. 2, 15.25). NPT treats every access of L2 as a user access, so WP,
// SMEP, SMAP and protection keys do not apply.
CpuRole NptCpuRole(const GuestPagingState& l1);

// Of `state`, only guest_mode and as_id matter (ROLE-05).
PageRole TdpRootRole(Level tdp_level, AdBits ad, const GuestPagingState& state);

// At least three levels: PAE tables shadow a guest that pages with four-byte
// entries or not at all (ROLE-04). NX is always on in them.
PageRole ShadowRootRole(CpuRole role);

// The same number of levels as L1's tables (ROLE-04).
PageRole ShadowEptRootRole(CpuRole role);

// The same number of levels as the host's NPT. A five-level host puts a
// passthrough page above L1's four levels (ROLE-30). The tables above L1's two
// or three levels are scratch tables, see ScratchTables (ROLE-23).
PageRole ShadowNptRootRole(CpuRole role, Level tdp_level);

// Whether the four PAE roots stand between the root and the shadow pages; then
// there is no shadow page of level 3 (ROLE-20).
constexpr bool HasPaeRoots(CpuRole role, PageRole root) {
  return role.guest_level() < 4 && root.level_number() >= 3 &&
         (!root.IsDirect() || root.level_number() == 3);
}

// The number of tables above the PAE roots, through which a vCPU of a four- or
// five-level host reaches them. They belong to the vCPU and are no shadow pages
// (ROLE-23).
constexpr int ScratchTables(CpuRole role, PageRole root) {
  return HasPaeRoots(role, root) ? root.level_number() - 3 : 0;
}

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGING_CPU_ROLE_H_
