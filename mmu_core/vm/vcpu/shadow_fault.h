// Turns a violation of a vCPU that runs on shadow pages into a mapping, or into
// a fault of its guest.

#ifndef MMU_CORE_VM_VCPU_SHADOW_FAULT_H_
#define MMU_CORE_VM_VCPU_SHADOW_FAULT_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/vm/vcpu/table_walk.h"

namespace mmu {

class ShadowVcpu;
class Vcpu;
struct VmCore;

// A value.
struct ShadowFaultOutcome {
  // kFixed, kSpurious, kRetry: try the access again. kEmulate: no memory can be
  // mapped for it. kWriteProtected: `gpa` is in a guest's page table; the write
  // is to be emulated (SHD-44).
  FaultResult result = FaultResult::kRetry;
  Gpa gpa;                          // translation of the faulting address
  std::optional<GuestFault> guest;  // set if the guest's tables forbid it
  absl::Status status;              // error if the fault failed
};

// `walk` is the result of the processor's walk: kNotPresent, kNotAllowed or
// kReserved. Errors: as HandleFault, and SHADOW_PAGES_EXHAUSTED (ENOSPC) if the
// limit of shadow pages is reached (SHD-28). Called on the vCPU's thread,
// outside of guest mode, with no lock held.
ShadowFaultOutcome HandleShadowFault(VmCore& vm, Vcpu& vcpu, ShadowVcpu& shadow,
                                     uint64_t address,
                                     const GuestPageAccess& access,
                                     const WalkResult& walk);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_FAULT_H_
