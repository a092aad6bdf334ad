// From a violation of a vCPU that runs on shadow pages to a mapping, or to a
// fault of its guest.

#ifndef MMU_CORE_VM_VCPU_SHADOW_FAULT_H_
#define MMU_CORE_VM_VCPU_SHADOW_FAULT_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/vm/vcpu/shadow_walk.h"

namespace mmu {

class ShadowVcpu;
class Vcpu;
struct VmCore;

// A value.
struct ShadowFaultOutcome {
  // kFixed, kSpurious, kRetry: try the access again. kEmulate: no memory can be
  // mapped for it. kWriteProtected: `gpa` is in a guest's table; the write is
  // to be emulated (SHD-44).
  FaultResult result = FaultResult::kRetry;
  Gpa gpa;                          // that `address` translates to
  std::optional<GuestFault> guest;  // the guest's tables do not allow it
  absl::Status status;              // the host could not serve it
};

// `walk` is what the processor met: kNotPresent, kNotAllowed or kReserved.
// Errors: as HandleFault, and SHADOW_PAGES_EXHAUSTED
// (ENOSPC) if there may be no more shadow pages (SHD-28). Called on the vCPU's
// thread, outside of guest mode, with no lock held.
ShadowFaultOutcome HandleShadowFault(VmCore& vm, Vcpu& vcpu, ShadowVcpu& shadow,
                                     uint64_t address,
                                     const GuestPageAccess& access,
                                     const ShadowWalkResult& walk);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_FAULT_H_
