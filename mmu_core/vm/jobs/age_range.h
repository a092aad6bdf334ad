// Ageing of one range of guest frames, at the request of a caller.

#ifndef MMU_CORE_VM_JOBS_AGE_RANGE_H_
#define MMU_CORE_VM_JOBS_AGE_RANGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// On whose behalf Accessed bits are cleared.
enum class AgedFor : uint8_t { kCaller, kGeneration };

// Vm::Age.
absl::StatusOr<AgeResult> AgeRange(VmCore& vm, GfnRange range, AgeMode mode,
                                   MmuCost* cost, Gfn young_until,
                                   MissingSlots missing,
                                   const AgeOptions& options,
                                   AgedFor aged_for = AgedFor::kCaller);

// FAST_AGING_UNAVAILABLE if AgeRange with these options would fail so now.
absl::Status CheckSlowMmus(VmCore& vm, const AgeOptions& options);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_AGE_RANGE_H_
