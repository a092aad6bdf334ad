#include "mmu_core/guest_paging/cpu_role.h"

#include <algorithm>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {
namespace {

constexpr int kPaeLevels = 3;

int GuestLevel(const GuestPagingState& state) {
  if ((state.efer & kEferLma) != 0) {
    return (state.cr4 & kCr4La57) != 0 ? 5 : 4;
  }
  return (state.cr4 & kCr4Pae) != 0 ? kPaeLevels : 2;
}

}  // namespace

CpuRole LegacyCpuRole(const GuestPagingState& state) {
  const auto cr4 = [&state](uint64_t bit) { return (state.cr4 & bit) != 0; };
  if ((state.cr0 & kCr0Pg) == 0) {
    // Level 0: the guest has no tables, so nothing else matters.
    return CpuRole(PageRole::Of({.direct = true,
                                 .access = kAllRights,
                                 .guest_mode = state.guest_mode,
                                 .as_id = state.as_id}),
                   {});
  }
  const bool wp = (state.cr0 & kCr0Wp) != 0;
  const bool nx = (state.efer & kEferNx) != 0;
  const bool lma = (state.efer & kEferLma) != 0;
  // Four-byte entries have no NX bit, but EFER.NX is part of the role in all
  // paging modes, as in KVM.
  return CpuRole(PageRole::Of({.level = GuestLevel(state),
                               .has_4_byte_gpte = !lma && !cr4(kCr4Pae),
                               .access = kAllRights,
                               .efer_nx = nx,
                               .cr0_wp = wp,
                               .smap_andnot_wp = cr4(kCr4Smap) && !wp,
                               .guest_mode = state.guest_mode,
                               .cr4_smep = cr4(kCr4Smep),
                               .as_id = state.as_id}),
                 {.cr4_pse = cr4(kCr4Pse),
                  .cr4_pke = lma && cr4(kCr4Pke),
                  .cr4_smap = cr4(kCr4Smap),
                  .cr4_la57 = lma && cr4(kCr4La57),
                  .efer_lma = lma,
                  // SDM vol. 3, 4.7: the I/D flag.
                  .pferr_fetch = (nx && cr4(kCr4Pae)) || cr4(kCr4Smep)});
}

CpuRole EptCpuRole(const EptOptions& options, int as_id) {
  return CpuRole(PageRole::Of({.level = ToInt(options.root_level),
                               .access = kAllRights,
                               .ad_disabled = !options.ad_bits,
                               .guest_mode = true,
                               .cr4_smep = options.mode_based_exec,
                               .as_id = as_id}),
                 {.exec_only = options.exec_only});
}

CpuRole NptCpuRole(const GuestPagingState& l1) {
  GuestPagingState state = l1;
  state.cr0 = kCr0Pg;
  state.cr4 &= ~(kCr4Smep | kCr4Smap | kCr4Pke);
  state.guest_mode = true;
  return LegacyCpuRole(state);
}

PageRole TdpRootRole(Level tdp_level, AdBits ad,
                     const GuestPagingState& state) {
  PageRole::Fields fields =
      PageRole::Direct(tdp_level, state.as_id, ad).fields();
  fields.guest_mode = state.guest_mode;
  return PageRole::Of(fields);
}

PageRole ShadowRootRole(CpuRole role) {
  PageRole::Fields fields = role.base().fields();
  fields.level = std::max(fields.level, kPaeLevels);
  fields.efer_nx = true;
  return PageRole::Of(fields);
}

PageRole ShadowEptRootRole(CpuRole role) { return role.base(); }

PageRole ShadowNptRootRole(CpuRole role, Level tdp_level) {
  MMU_CHECK(ToInt(tdp_level) >= role.guest_level());
  PageRole::Fields fields = role.base().fields();
  fields.passthrough = fields.level == 4 && tdp_level == Level::k256T;
  fields.level = ToInt(tdp_level);
  return PageRole::Of(fields);
}

}  // namespace mmu
