// Ageing of many ranges of a VM as one question.
//
// A huge leaf has one Accessed bit for all its pages. So whoever clears it for
// one range has cleared it for the others that it reaches into, and would call
// those old. A sweep goes through all ranges in ascending order, each page
// once, and carries on what such a leaf has said: TEST_AND_CLEAR answers what
// TEST would have.

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
  // In any order; they may touch and overlap. `vm` outlives this. `missing`: of
  // memslots, also those that go while the sweep goes on.
  AgeSweep(VmCore& vm, std::vector<GfnRange> ranges, AgeMode mode,
           MissingSlots missing = MissingSlots::kRefuse);

  struct Piece {
    GfnRange pages;  // a GiB at most, and of one GiB
    AgeResult result;
  };
  bool done() const { return next_ == ranges_.size(); }
  // Ages the next piece. `cost` may be null. Errors, after which the sweep
  // stays where it is: as Vm::Age. REQUIRES: !done().
  absl::StatusOr<Piece> Next(MmuCost* cost);

 private:
  VmCore& vm_;
  const AgeMode mode_;
  const MissingSlots missing_;
  std::vector<GfnRange> ranges_;  // ascending; none touches another
  size_t next_ = 0;               // the first of them that is not through
  Gfn at_;                        // where in it
  Gfn young_until_;               // of the pieces before (aging/aging.h)
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_AGE_SWEEP_H_
