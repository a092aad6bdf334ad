// The handling of a guest's access to a gfn without memory.

#ifndef MMU_CORE_VM_RUN_MISSING_MEMORY_H_
#define MMU_CORE_VM_RUN_MISSING_MEMORY_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"

namespace mmu {

enum class MissingMemory : uint8_t {
  kDevice,  // no device: reads all ones, ignores writes
  kLost,    // the guest's memory was removed; it cannot continue
};

// FAILED_PRECONDITION GUEST_LOST.
inline absl::Status GuestMemoryIsGone(uint64_t address) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   {Reason::kGuestLost, "", 0},
                   Format("the guest's memory at its address 0x%x was removed; "
                          "a guest with its own page tables cannot continue; "
                          "create the VM again",
                          address));
}

// The same for a guest that fails with `failure` after memory was taken away
// from it.
inline absl::Status GuestMemoryWasTaken(const absl::Status& failure) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, {Reason::kGuestLost, "", 0},
      Format(
          "memory of the guest was removed, and the guest failed: %s; a guest "
          "with its own page tables cannot continue; create the VM again",
          std::string(failure.message())));
}

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_MISSING_MEMORY_H_
