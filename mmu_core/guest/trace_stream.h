// The recorded accesses of a program, in order.
//
// This library does not read trace files; readers of a file format implement
// this interface.

#ifndef MMU_CORE_GUEST_TRACE_STREAM_H_
#define MMU_CORE_GUEST_TRACE_STREAM_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/guest/guest_access.h"

namespace mmu {

// Thread-compatible.
class TraceStream {
 public:
  virtual ~TraceStream() = default;

  // Stores the next access, at an address of the traced program, in `access`
  // and returns true; returns false at the end of the trace. After an error it
  // returns the same error until Rewind.
  virtual absl::StatusOr<bool> Next(GuestAccess* access) = 0;

  // Goes back to the first access.
  virtual absl::Status Rewind() = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_TRACE_STREAM_H_
