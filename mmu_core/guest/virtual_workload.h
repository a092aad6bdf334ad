// A stream of accesses, run in a guest that has page tables of its own.
//
// An AccessSource chooses addresses in one flat memory. A VirtualWorkload takes
// such an address for one of a program, of a process or of an L2 guest, whose
// memory the guest hands out on demand, moves about and takes away.

#ifndef MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_
#define MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

// Whether a workload knows what its memory has to hold, and so can see a read
// that finds something else. Costs memory and time per word written.
enum class ReadCheck : uint8_t { kNo, kYes };

// One per vCPU. Thread-compatible: one vCPU thread calls it.
class VirtualWorkload {
 public:
  virtual ~VirtualWorkload() = default;

  // Does one access of the stream, to the aligned 8-byte word that has its
  // first byte, and before it what the guest does by itself now and then. A
  // write stores `*word`; a read or fetch puts what is there into it.
  // DATA_LOSS with ReadCheck::kYes if that is not what was written; otherwise
  // the errors of the guest's kernel or hypervisor.
  virtual absl::Status Access(const GuestAccess& access, uint64_t* word) = 0;

  // The memory of a program: addresses of the stream are taken modulo this.
  virtual uint64_t program_pages() const = 0;

  // Reads all that was ever written. DATA_LOSS as Access; OK without a check.
  virtual absl::Status Verify() = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_
