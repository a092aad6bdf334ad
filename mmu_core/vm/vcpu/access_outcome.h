// How an access of a vCPU ended.

#ifndef MMU_CORE_VM_VCPU_ACCESS_OUTCOME_H_
#define MMU_CORE_VM_VCPU_ACCESS_OUTCOME_H_

#include <cstdint>

namespace mmu {

enum class AccessOutcome : uint8_t {
  kDone,           // the guest's memory was read or written
  kEmulated,       // no memslot there, or a write to a read-only one
  kGuestFault,     // the guest's own tables do not allow it (ShadowVcpu only)
  kDirtyRingFull,  // the vCPU may not enter the guest until its dirty ring has
                   // room (DL-42); the access waits for ContinueAccess
  kError,          // the host could not serve it: status() tells why;
                   // CANCELLED: it waited, and the vCPU is to stop
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_ACCESS_OUTCOME_H_
