// What runs on a vCPU, seen from the vCPU: a sequence of memory accesses.
//
// Patterns (pattern.h) and replayed traces (trace_replay.h) are sources. The
// source knows nothing of page tables; it only chooses addresses.

#ifndef MMU_CORE_GUEST_ACCESS_SOURCE_H_
#define MMU_CORE_GUEST_ACCESS_SOURCE_H_

#include "absl/status/status.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

// One per vCPU. Thread-compatible: one vCPU thread calls it.
class AccessSource {
 public:
  virtual ~AccessSource() = default;

  // Puts the next access into `access` and returns true, or returns false if
  // there is none; after that it returns false forever. The address is a
  // guest-physical address inside the GpaSpace the source was given, and the
  // access never crosses a 4 KiB page. Does not block.
  virtual bool Next(GuestAccess* access) = 0;

  // Why Next returned false: OK if the source simply came to its end.
  virtual absl::Status status() const { return absl::OkStatus(); }
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_ACCESS_SOURCE_H_
