#include "mmu_core/vm/core/shadow_page_limit.h"

#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"

namespace mmu {

uint64_t ShadowPageLimit(const VmCore& vm) {
  return vm.mmus.shadow_page_limit();
}

absl::Status SetShadowPageLimit(VmCore& vm, uint64_t pages, MmuCost* cost) {
  if (vm.mmus.shadow_page_limit() == 0) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, {Reason::kNoShadowPages, "", 0},
        "this VM's MMU has no shadow pages to limit; create a VM with "
        "tdp_shadow, shadow or nested");
  }
  MutexLock slots(vm.slots.slots_lock);
  return vm.mmus.SetShadowPageLimit(pages, cost);
}

}  // namespace mmu
