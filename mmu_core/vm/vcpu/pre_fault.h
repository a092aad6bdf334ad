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

// The part of the range that is not mapped yet. A value.
struct PreFaultRange {
  Gpa gpa;                  // multiple of 4096
  uint64_t size_bytes = 0;  // multiple of 4096, not 0
  uint64_t flags = 0;       // no flag is defined
};

// Maps the pages of `range` as a read by `vcpu` would, without setting Accessed
// bits, and moves the start of `range` past the mapped pages. A page that is
// already mapped counts as done, and so do all pages that its huge page covers.
//
// Returns OK if at least one page was done: call again with the rest of
// `range`. If no page was done:
//
//   INVALID_ARGUMENT  INVALID_FLAGS, UNALIGNED, INVALID_RANGE (EINVAL)
//   NOT_FOUND         NO_MEMORY_THERE (ENOENT): no slot at the start
//   ABORTED           MEMSLOT_CHANGING (EAGAIN): its slot is being deleted
//   CANCELLED         INTERRUPTED (EINTR): `interrupted` said so
//   RESOURCE_EXHAUSTED  DIRTY_RING_FULL (EAGAIN): the vCPU's ring has no room
//                     for more pages of logged slots (DL-42)
//
// and the errors of faults. Called with no lock held, on the vCPU's thread
// outside of guest mode, or while no thread runs the vCPU.
absl::Status PreFaultMemory(VmCore& vm, Vcpu& vcpu, PreFaultRange& range,
                            absl::FunctionRef<bool()> interrupted);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_PRE_FAULT_H_
