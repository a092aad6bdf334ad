#include "mmu_core/vm/core/shadow_page_limit.h"

#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

uint64_t ShadowPageLimit(const VmCore& vm) {
  return vm.shadow == nullptr ? 0 : vm.shadow->pages().limit();
}

absl::Status SetShadowPageLimit(VmCore& vm, uint64_t pages, MmuCost* cost) {
  if (vm.shadow == nullptr) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, {Reason::kNoShadowPages, "", 0},
        "this VM has only the TDP MMU, so there are no shadow pages to "
        "limit; create a VM with an MMU that has shadow pages");
  }
  if (absl::Status s = ShadowPages::CheckLimit(pages); !s.ok()) return s;
  MutexLock slots(vm.slots.slots_lock);
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap, cost);
  vm.shadow->pages().SetLimit(lock, pages, cost);
  return absl::OkStatus();
}

}  // namespace mmu
