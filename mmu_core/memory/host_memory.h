// The host memory of one VM: allocates or borrows backings and finds frames in
// them.

#ifndef MMU_CORE_MEMORY_HOST_MEMORY_H_
#define MMU_CORE_MEMORY_HOST_MEMORY_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/frame_map.h"

namespace mmu {

// Thread-safe.
class HostMemory {
 public:
  HostMemory() : frames_(std::make_shared<FrameMap>()) {}

  // Allocates zeroed memory. The memory is freed with the last reference, which
  // may outlive this object. Nothing is left behind after an error. Errors, all
  // of the field "size_bytes":
  //
  //   INVALID_ARGUMENT    INVALID_SIZE (EINVAL): the size is zero, not a
  //   multiple
  //                       of 4096 or more than kMaxBackingBytes
  //   RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED_MEMORY (ENOMEM): the host's memory
  //                       or the frame numbers do not suffice
  absl::StatusOr<std::shared_ptr<Backing>> Allocate(
      const BackingSpec& spec) const {
    return Backing::Create(spec, frames_);
  }

  // Borrows memory, which stays its owner's: nothing is unmapped when the last
  // reference goes. The lender is released with the last reference. Errors: as
  // Allocate. REQUIRES: the conditions of BorrowedSpec and FrameLender.
  absl::StatusOr<std::shared_ptr<Backing>> Borrow(
      const BorrowedSpec& spec, std::shared_ptr<FrameLender> lender) const {
    return Backing::Borrow(spec, std::move(lender), frames_);
  }

  // First byte of the frame. Null if the frame is metadata-only, unknown or
  // freed. Lock-free: called on TLB fills. The memory stays valid only as long
  // as its Backing is referenced.
  std::byte* PointerTo(Pfn pfn) const { return frames_->PointerTo(pfn); }

 private:
  const std::shared_ptr<FrameMap> frames_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_HOST_MEMORY_H_
