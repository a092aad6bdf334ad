// Ageing of guest frames in all MMUs of a VM.

#ifndef MMU_CORE_VM_CORE_AGE_PAGES_H_
#define MMU_CORE_VM_CORE_AGE_PAGES_H_

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

struct VmCore;

// Tests, or tests and clears, the Accessed bits of the leafs that map pages of
// `range` of address space `as_id` (MmuSet::Age). Pages before `young_until`
// are young if they are still mapped: their huge leaf was aged with an earlier
// range. No flush. Takes no lock with FastOnly::kYes; not inside an RCU
// section.
AgeResult AgePages(VmCore& vm, int as_id, GfnRange range, AgeMode mode,
                   const AgeOptions& options, MmuCost* cost,
                   Gfn young_until = Gfn(0));

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_AGE_PAGES_H_
