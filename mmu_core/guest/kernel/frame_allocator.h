// The free memory of a guest, with a reference count per page.

#ifndef MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_
#define MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"

namespace mmu {

// Allocates 4 KiB frames from the bottom, and runs of frames for large pages
// from the top. Thread-compatible.
class FrameAllocator {
 public:
  explicit FrameAllocator(const GpaSpace& space);

  // A frame with one reference; nullopt if none is left. `recycled`: the frame
  // was used before, so it has old contents.
  struct Frame {
    Gfn gfn;
    bool recycled = false;
  };
  std::optional<Frame> Allocate();
  // `count` frames, a power of two, never used before, each with one reference.
  // The first gfn is a multiple of `count`.
  std::optional<Gfn> AllocateRun(uint64_t count);

  // For a frame that is not allocated the following functions do nothing, and
  // its count is 0. Entries that a guest reads from its tables cannot be
  // trusted: its memory may be removed while it runs.
  void AddReference(Gfn gfn) {
    if (const auto it = references_.find(gfn.value());
        it != references_.end()) {
      ++it->second;
    }
  }
  int references(Gfn gfn) const {
    const auto it = references_.find(gfn.value());
    return it == references_.end() ? 0 : it->second;
  }
  // Dropping the last reference frees the frame.
  void Drop(Gfn gfn);

  uint64_t frames_in_use() const { return references_.size(); }

 private:
  GpaSpace space_;
  uint64_t bottom_ = 0;  // lower pages of `space_` were allocated singly
  uint64_t top_;         // pages from here on were allocated in runs
  // No run of this many frames is left, and none will become free.
  uint64_t too_many_ = ~uint64_t{0};
  std::vector<Gfn> free_;
  std::unordered_map<uint64_t, int> references_;  // by gfn
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_
