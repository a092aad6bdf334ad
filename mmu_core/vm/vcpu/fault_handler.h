// The general page-fault handler: turns a vCPU's violation into a mapping.

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
// "try the access again"; kEmulate means that no memory can be mapped for it.
// `present`: the walk met an entry that forbids the access. Waits for a frame a
// few milliseconds at most, then returns kRetry. Called on the vCPU's thread,
// outside of guest mode and of RCU read sections, with no lock held. Errors:
//
//   RESOURCE_EXHAUSTED   MMU_PAGES_EXHAUSTED
//   FAILED_PRECONDITION  HOST_READ_ONLY (EFAULT): a write to a page that the
//                        host allows only to be read
//   FAILED_PRECONDITION  HOST_FRAME_MISSING (EFAULT): the lender of the memory
//                        cannot provide the frame
absl::StatusOr<FaultResult> HandleFault(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                        AccessKind kind, bool present);

enum class PrefetchResult : uint8_t {
  kMapped,        // by this call or already
  kRetry,         // something changed meanwhile: call again
  kNoMemory,      // no memslot covers the page
  kSlotChanging,  // the memslot is being deleted or moved
};

// Handles a read fault on `gfn` that the guest did not cause (PF-41). If the
// result is kMapped, `*level` is the level that now maps the page. The fault is
// not counted. Loads a root if the vCPU has none. Called as HandleFault.
absl::StatusOr<PrefetchResult> HandlePrefetch(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                              Level* level);

// Handles a fault on a reserved bit (PF-35). Returns kEmulate if there is no
// memory, kRetry if the entry is no longer an MMIO SPTE, and kInvalid if the
// MMIO SPTE is out of date: the caller then calls HandleFault. Counts nothing.
// Called as HandleFault.
FaultResult HandleMmioFault(VmCore& vm, Vcpu& vcpu, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_FAULT_HANDLER_H_
