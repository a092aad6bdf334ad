// Mapping memory before the guest touches it (PF-41).

#ifndef MMU_CORE_VM_VCPU_PRE_FAULT_H_
#define MMU_CORE_VM_VCPU_PRE_FAULT_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/address.h"

namespace mmu {

class Vcpu;
struct VmCore;

// What is still to be mapped. A value.
struct PreFaultRange {
  Gpa gpa;                  // multiple of 4096
  uint64_t size_bytes = 0;  // multiple of 4096, not 0
  uint64_t flags = 0;       // none is defined
};

// Maps what `range` covers as a read by `vcpu` would, without marking anything
// as accessed, and moves the range's start past what is done. A page that is
// there already counts as done, and so does all that a huge page covers.
//
// OK if anything was done, even if not everything: call again with what is
// left. With nothing done:
//
//   INVALID_ARGUMENT  INVALID_FLAGS, UNALIGNED, INVALID_RANGE (EINVAL)
//   NOT_FOUND         NO_MEMORY_THERE (ENOENT): no slot at the start
//   ABORTED           MEMSLOT_CHANGING (EAGAIN): its slot is being deleted
//   CANCELLED         INTERRUPTED (EINTR): `interrupted` said so
//   RESOURCE_EXHAUSTED  DIRTY_RING_FULL (EAGAIN): the vCPU's ring has no room
//                     for more pages of logged slots (DL-42)
//
// and the errors of faults. Called on the vCPU's thread outside of guest mode,
// or while no thread runs the vCPU; with no lock held.
absl::Status PreFaultMemory(VmCore& vm, Vcpu& vcpu, PreFaultRange& range,
                            absl::FunctionRef<bool()> interrupted);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_PRE_FAULT_H_
