// The leafs in the tables of one MMU of a VM.

#ifndef MMU_CORE_TESTING_LEAF_LIST_H_
#define MMU_CORE_TESTING_LEAF_LIST_H_

#include <vector>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

// The gfns of address space 0 that each leaf of the MMU maps, ascending, and
// the small leafs first where the shadow MMU has leafs of several sizes. Only
// leafs that map a page of `range`; those as a whole. Gfns that several leafs
// of one size map occur once. No vCPU runs.
std::vector<GfnRange> LeafsOf(Vm& vm, MmuKind kind, GfnRange range);

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_LEAF_LIST_H_
