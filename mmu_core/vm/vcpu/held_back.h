// Waiting while a fault cannot be resolved.
//
// The guest retries the access as soon as its fault returns "retry". That is
// mostly right: another thread resolved the fault first. But while the host
// invalidates the page, or its memslot is being deleted or moved, every retry
// ends the same way. The vCPU then waits outside of guest mode, holding no
// lock. It can be paused and stopped meanwhile, because the host may do both
// before it ends the invalidation.
//
// A missing frame (memory/frame_lender.h) is different: the fault itself waits
// for it, a few milliseconds at a time. Between two of these waits the vCPU can
// be paused and stopped as well.

#ifndef MMU_CORE_VM_VCPU_HELD_BACK_H_
#define MMU_CORE_VM_VCPU_HELD_BACK_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"

namespace mmu {

class Vcpu;
struct VmCore;

// Returns when nothing holds back a fault on `gfn` of address space 0 any more.
// Returns at once if nothing does. Also returns when `wanted` returns true,
// that is, when the caller has something else to do first; `wanted` is polled
// every few milliseconds. The time spent waiting counts as a stall of `vcpu`.
// Called on the vCPU's thread, outside of guest mode and of RCU read sections,
// with no lock held. So this wait delays neither a flush, nor a thread that
// waits for vCPUs to exit, nor the invalidator.
//
// If the vCPU is asked to park during the wait, it parks and then goes on
// waiting; parked time is no stall. It also parks on request if the page only
// lacks its frame. CANCELLED: the vCPU is to stop, and the access cannot be
// completed.
absl::Status AwaitRelease(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                          absl::FunctionRef<bool()> wanted);

// For tests: sets how often `wanted` is polled from now on. With an hour, a
// wait ends only because something ends it. Thread-safe.
void SetReleaseLook(absl::Duration every);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_HELD_BACK_H_
