// The workload of a vCPU: a sequence of memory accesses.
//
// Patterns (pattern.h) and replayed traces (trace_replay.h) are sources. A
// source does not deal with page tables; it only chooses addresses.

#ifndef MMU_CORE_GUEST_ACCESS_SOURCE_H_
#define MMU_CORE_GUEST_ACCESS_SOURCE_H_

#include "absl/status/status.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

// One per vCPU. Thread-compatible: one vCPU thread calls it.
class AccessSource {
 public:
  virtual ~AccessSource() = default;

  // Stores the next access in `access` and returns true. Returns false if there
  // is none, and from then on always. The address is a guest-physical address
  // inside the GpaSpace that the source was given, and the access never crosses
  // a 4 KiB page. Does not block.
  virtual bool Next(GuestAccess* access) = 0;

  // Why Next returned false: OK if the source simply ended.
  virtual absl::Status status() const { return absl::OkStatus(); }
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_ACCESS_SOURCE_H_
