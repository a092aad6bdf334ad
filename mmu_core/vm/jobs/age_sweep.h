// Ageing of many ranges of a VM as one operation.
//
// A huge leaf has one Accessed bit for all its pages. Clearing it for one range
// also clears it for the other ranges that the leaf reaches into, which would
// then seem old. A sweep visits all ranges in ascending order, each page once,
// and remembers the result of such a leaf: TEST_AND_CLEAR returns what TEST
// would have returned.

#ifndef MMU_CORE_VM_JOBS_AGE_SWEEP_H_
#define MMU_CORE_VM_JOBS_AGE_SWEEP_H_

#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Thread-compatible.
class AgeSweep {
 public:
  // `ranges` may be in any order, and may touch and overlap. `vm` outlives this
  // object. `missing` also applies to memslots that are deleted during the
  // sweep.
  AgeSweep(VmCore& vm, std::vector<GfnRange> ranges, AgeMode mode,
           MissingSlots missing = MissingSlots::kRefuse,
           const AgeOptions& options = {});

  struct Piece {
    GfnRange pages;  // at most a GiB, within one GiB
    AgeResult result;
  };
  bool done() const { return next_ == ranges_.size(); }
  // Ages the next piece. `cost` may be null. Errors as for Vm::Age; after an
  // error the sweep stays at the piece. REQUIRES: !done().
  absl::StatusOr<Piece> Next(MmuCost* cost);

 private:
  VmCore& vm_;
  const AgeMode mode_;
  const MissingSlots missing_;
  const AgeOptions options_;
  std::vector<GfnRange> ranges_;  // ascending; none touches another
  size_t next_ = 0;               // the first range that is not finished
  Gfn at_;                        // the position in that range
  Gfn young_until_;               // of earlier pieces (aging/aging.h)
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_AGE_SWEEP_H_
