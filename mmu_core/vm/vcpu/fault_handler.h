// From a vCPU's violation to a mapping: the general page-fault handler.

#ifndef MMU_CORE_VM_VCPU_FAULT_HANDLER_H_
#define MMU_CORE_VM_VCPU_FAULT_HANDLER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/stats/vcpu_stats.h"

namespace mmu {

class Vcpu;
struct VmCore;

// Handles one fault of `vcpu` (PF-02, PF-04). kFixed, kSpurious and kRetry mean
// "try the access again"; kEmulate that no memory can be mapped for it. Errors:
// RESOURCE_EXHAUSTED MMU_PAGES_EXHAUSTED; FAILED_PRECONDITION HOST_READ_ONLY
// (EFAULT) for a write to a page that the host lets be read only,
// HOST_FRAME_MISSING (EFAULT) for one that whoever lends the memory cannot
// give. Waits for a frame a few milliseconds at most, then says kRetry.
// `present`: the walk met an entry that forbids the access. Called on the
// vCPU's thread, outside of guest mode and of RCU read sections, with no lock
// held.
absl::StatusOr<FaultResult> HandleFault(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                        AccessKind kind, bool present);

enum class PrefetchResult : uint8_t {
  kMapped,        // by this call or before
  kRetry,         // something changed meanwhile: ask again
  kNoMemory,      // no memslot is there
  kSlotChanging,  // the memslot is being deleted or moved
};

// A read fault on `gfn` that no guest has caused (PF-41): `*level` maps it now.
// Not counted as a fault. Loads a root if the vCPU has none. Called as
// HandleFault.
absl::StatusOr<PrefetchResult> HandlePrefetch(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                              Level* level);

// Handles a fault on a reserved bit (PF-35): kEmulate if there is no memory,
// kRetry if the entry is no MMIO SPTE any more, kInvalid if it is out of date:
// then HandleFault. Counts nothing. Called as HandleFault.
FaultResult HandleMmioFault(VmCore& vm, Vcpu& vcpu, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_FAULT_HANDLER_H_
