#include "mmu_core/vm/core/mmu_mode_check.h"

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {
namespace {

absl::Status Invalid(const char* field, const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   {Reason::kInvalidMmuOption, field, EINVAL}, message);
}

absl::Status CheckLimit(const VmConfig& config) {
  if (config.shadow_page_limit == 0) return absl::OkStatus();
  if (config.mmu == MmuMode::kTdp) {
    return Invalid("shadow_page_limit",
                   Format("shadow_page_limit is %d, but a VM with the TDP MMU "
                          "alone has no shadow pages; set it to 0, or choose "
                          "an MMU with shadow pages",
                          config.shadow_page_limit));
  }
  if (config.shadow_page_limit < ShadowPages::kMinLimit) {
    return Invalid("shadow_page_limit",
                   Format("shadow_page_limit is %d; it must be at "
                          "least %d, or 0 for a fiftieth of the VM's "
                          "pages",
                          config.shadow_page_limit, ShadowPages::kMinLimit));
  }
  return absl::OkStatus();
}

absl::Status CheckGuestPaging(const VmConfig& config) {
  using Mode = GuestPagingConfig::Mode;
  const GuestPagingConfig& paging = config.guest_paging;
  if (config.mmu == MmuMode::kNested && paging.mode != Mode::k4Level &&
      paging.mode != Mode::k5Level) {
    return Invalid("guest_paging.mode",
                   Format("guest_paging.mode is %s, but tables that "
                          "L1 makes for L2 must have 4 or 5 levels",
                          paging.mode == Mode::kPae ? "PAE" : "32-bit"));
  }
  if (paging.mode == Mode::k5Level && config.root_levels != 5) {
    return Invalid("guest_paging.mode",
                   Format("guest_paging.mode has 5 levels, but the processor "
                          "walks %d levels; make it walk 5, or choose a mode "
                          "that has fewer",
                          config.root_levels));
  }
  if (paging.processes < 1 || paging.processes > kMaxGuestProcesses) {
    return Invalid("guest_paging.processes",
                   Format("the number of processes is %d; it must be from 1 "
                          "to %d",
                          paging.processes, kMaxGuestProcesses));
  }
  if (paging.ad_bits == GuestPagingConfig::AdBits::kOff &&
      (config.mmu != MmuMode::kNested || config.format != EntryFormat::kEpt)) {
    return Invalid("guest_paging.ad_bits",
                   "Accessed and Dirty bits are off in the guest's tables, but "
                   "only EPT tables of a nested guest can do without them");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMmuMode(const VmConfig& config) {
  if (absl::Status status = CheckLimit(config); !status.ok()) return status;
  if (!GuestHasTables(config)) return absl::OkStatus();
  if (config.mmu == MmuMode::kShadow && config.format != EntryFormat::kNpt) {
    return Invalid("format",
                   "the format is EPT, but shadow pages of a guest's own "
                   "tables are laid out as ordinary tables are; it must be "
                   "NPT");
  }
  return CheckGuestPaging(config);
}

}  // namespace mmu
