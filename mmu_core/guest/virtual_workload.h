// A stream of accesses, run in a guest that has its own page tables.
//
// An AccessSource chooses addresses in one flat memory. A VirtualWorkload
// interprets such an address as one of a program: of a process or of an L2
// guest. The guest allocates the program's memory on demand, moves it and
// removes it.

#ifndef MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_
#define MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

// Whether a workload knows the expected contents of its memory, and so detects
// a read of a wrong value. Costs memory and time per word written.
enum class ReadCheck : uint8_t { kNo, kYes };

// One per vCPU. Thread-compatible: one vCPU thread calls it.
class VirtualWorkload {
 public:
  virtual ~VirtualWorkload() = default;

  // Makes one access of the stream, to the aligned 8-byte word that has its
  // first byte; before it, does the guest's own operations that are due. A
  // write stores `*word`; a read or fetch loads into `*word`. With
  // ReadCheck::kYes, DATA_LOSS if the loaded word is not the one written;
  // otherwise the errors of the guest's kernel or hypervisor.
  virtual absl::Status Access(const GuestAccess& access, uint64_t* word) = 0;

  // The size of a program's memory: addresses of the stream are taken modulo
  // it.
  virtual uint64_t program_pages() const = 0;

  // Reads everything ever written. DATA_LOSS as in Access; OK without a check.
  virtual absl::Status Verify() = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_VIRTUAL_WORKLOAD_H_
