// One pass that merges small mappings into huge ones.

#ifndef MMU_CORE_VM_JOBS_RECOVER_HUGE_PAGES_H_
#define MMU_CORE_VM_JOBS_RECOVER_HUGE_PAGES_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::CheckRecoverHugePages.
absl::Status CheckRecoverHugePages(const VmCore& vm,
                                   const std::vector<GfnRange>& ranges);

// Vm::RecoverHugePages.
absl::StatusOr<RecoverOutcome> RecoverHugePages(
    VmCore& vm, const std::vector<GfnRange>& ranges, MmuCost* cost,
    absl::Duration max_lock_hold);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_RECOVER_HUGE_PAGES_H_
