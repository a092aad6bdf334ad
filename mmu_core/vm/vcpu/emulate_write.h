// Emulates a guest's write to one of its page tables that stays
// write-protected, so that the vCPU cannot make the write itself (SHD-40,
// SHD-44).

#ifndef MMU_CORE_VM_VCPU_EMULATE_WRITE_H_
#define MMU_CORE_VM_VCPU_EMULATE_WRITE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu {

class MmuSet;

enum class EmulatedWrite : uint8_t {
  kDone,
  kRetry,   // the page is going, or the dirty ring is full: try again
  kCannot,  // read-only, or no memory that can store the bytes
};

// Stores the low `size_bytes` (4 or 8) of `word` at the aligned `gpa` of
// address space 0. The store goes through `memory`, which marks the page in the
// dirty log. Then `mmus` drop everything that they made from the old entry.
// Nothing was written unless the result is kDone. Takes mmu_lock.
EmulatedWrite EmulateGuestWrite(MmuSet& mmus, GuestWords& memory, Gpa gpa,
                                int size_bytes, uint64_t word);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_EMULATE_WRITE_H_
