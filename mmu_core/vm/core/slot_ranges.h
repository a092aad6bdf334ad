// Checks of gfn ranges against the memslots.

#ifndef MMU_CORE_VM_CORE_SLOT_RANGES_H_
#define MMU_CORE_VM_CORE_SLOT_RANGES_H_

#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot_set.h"

namespace mmu {

// Whether each page of `range` lies in a slot of `set`:
//   OUT_OF_RANGE INVALID_RANGE     `range` is empty
//   OUT_OF_RANGE GPA_OUT_OF_RANGE  (vm/core/range_check.h)
absl::Status CheckCovered(const MemslotSet& set, GfnRange range);

// The union of `ranges`: ascending ranges, none empty, none touching another.
std::vector<GfnRange> UnionOf(std::vector<GfnRange> ranges);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_SLOT_RANGES_H_
