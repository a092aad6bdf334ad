// A guest's write that its vCPU cannot make, because a table of the guest is
// there that stays write-protected: made by us instead (SHD-40, SHD-44).

#ifndef MMU_CORE_VM_VCPU_EMULATE_WRITE_H_
#define MMU_CORE_VM_VCPU_EMULATE_WRITE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu {

struct VmCore;

enum class EmulatedWrite : uint8_t {
  kDone,
  kRetry,   // the memory is going, or the dirty ring is full: look again
  kCannot,  // it may not be written, or nothing can be stored there
};

// Stores the low `size_bytes` (4 or 8) of `word` at the aligned `gpa` of
// address space 0 through `memory`, which notes it in the dirty log, and has
// the shadow MMU drop what followed from the entry that was there. Nothing was
// written unless it says kDone. Takes mmu_lock.
EmulatedWrite EmulateGuestWrite(VmCore& vm, GuestWords& memory, Gpa gpa,
                                int size_bytes, uint64_t word);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_EMULATE_WRITE_H_
