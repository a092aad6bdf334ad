// A trace in memory, shared between vCPUs.

#ifndef MMU_CORE_GUEST_VECTOR_TRACE_STREAM_H_
#define MMU_CORE_GUEST_VECTOR_TRACE_STREAM_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/guest/trace_stream.h"

namespace mmu {

// Thread-compatible; streams over the same accesses are independent.
class VectorTraceStream final : public TraceStream {
 public:
  // REQUIRES: accesses is not null.
  explicit VectorTraceStream(
      std::shared_ptr<const std::vector<GuestAccess>> accesses)
      : accesses_(std::move(accesses)) {}

  absl::StatusOr<bool> Next(GuestAccess* access) override {
    if (next_ == accesses_->size()) return false;
    *access = (*accesses_)[next_++];
    return true;
  }

  absl::Status Rewind() override {
    next_ = 0;
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<const std::vector<GuestAccess>> accesses_;
  size_t next_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_VECTOR_TRACE_STREAM_H_
