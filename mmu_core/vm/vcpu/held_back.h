// Waiting where a fault can come to nothing yet.
//
// A fault that is told to retry is tried again by the guest at once. Mostly
// that is right: somebody else was faster, and is done. But while the host
// invalidates the page, or its memslot is being deleted or moved, every try
// ends the same way. Then the vCPU waits, outside of guest mode, with nothing
// held, and can be paused and stopped: the host may do both before it ends the
// invalidation.
//
// A frame that is missing (memory/frame_lender.h) is waited for by the fault, a
// few milliseconds at a time. In between the vCPU can be paused and stopped as
// well.

#ifndef MMU_CORE_VM_VCPU_HELD_BACK_H_
#define MMU_CORE_VM_VCPU_HELD_BACK_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"

namespace mmu {

class Vcpu;
struct VmCore;

// Returns when nothing holds back a fault on `gfn` of address space 0 any more,
// or when `wanted` says that the caller has something else to do first, which
// is looked at every few milliseconds. At once if nothing does; what it waits
// is booked as a stall of `vcpu`. Called on the vCPU's thread, outside of guest
// mode and of RCU read sections, with no lock held: so neither a flush, nor
// who waits for vCPUs to exit, nor the invalidator waits for it.
//
// While it waits it parks when it is asked to, and then goes on waiting; that
// is no stall. It parks, too, if the page waits for a frame. CANCELLED:
// it is to stop, and the access cannot be completed.
absl::Status AwaitRelease(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                          absl::FunctionRef<bool()> wanted);

// For tests: from now on `wanted` is looked at this often. With an hour a wait
// ends only because somebody ends it. Thread-safe.
void SetReleaseLook(absl::Duration every);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_HELD_BACK_H_
