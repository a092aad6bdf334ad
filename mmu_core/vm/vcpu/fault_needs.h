// What a fault must get outside of its RCU read section before it can go on.

#ifndef MMU_CORE_VM_VCPU_FAULT_NEEDS_H_
#define MMU_CORE_VM_VCPU_FAULT_NEEDS_H_

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/memory/missing_frame.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

struct FaultNeeds {
  bool tables = false;
  MissingFrame frame;

  bool Any() const { return tables || frame.noted(); }
};

// Handles a fault by `handle`, in an RCU read section: the slot that `handle`
// finds stays as it is until the section ends (SLOT-24). A map operation needs
// free tables. Some of them may be on their way back to their pool, and an open
// RCU section delays their return. So if the vCPU has too few tables, `handle`
// asks for them, `top_up` gets them, and `handle` is called again:
//
//   1. section: slot found, fast page fault fails, tables wanted
//   2. no section: tables taken from the pool, perhaps after a grace period;
//      meanwhile the slot may change or go
//   3. section: slot found, fast page fault, frame, mmu_lock, map
//
// The tables belong to this vCPU alone, so they are still there in 3. Step 2
// also asks for a missing frame (memory/missing_frame.h). If `error` is not OK
// on return, the result is meaningless.
template <typename TopUp, typename Fn>
FaultResult InRcuSectionWithNeeds(TopUp top_up, absl::Status* error,
                                  Fn handle) {
  FaultNeeds needs;
  for (;;) {
    {
      RcuReadGuard rcu;
      const FaultResult result = handle(&needs);
      if (ABSL_PREDICT_TRUE(!needs.Any())) return result;
    }
    if (needs.tables) {
      needs.tables = false;
      *error = top_up();
    } else {
      *error = needs.frame.Ask();
      if (needs.frame.not_yet()) return FaultResult::kRetry;
    }
    if (ABSL_PREDICT_FALSE(!error->ok())) return FaultResult::kRetry;
  }
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_FAULT_NEEDS_H_
