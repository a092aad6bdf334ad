// The free memory of a guest, and who shares a page of it.

#ifndef MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_
#define MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"

namespace mmu {

// Hands out 4 KiB frames from the bottom, and runs of frames for large pages
// from the top. Thread-compatible.
class FrameAllocator {
 public:
  explicit FrameAllocator(const GpaSpace& space);

  // A frame with one reference; nothing if there is none left.
  // `recycled`: it was used before, so it has old contents.
  struct Frame {
    Gfn gfn;
    bool recycled = false;
  };
  std::optional<Frame> Allocate();
  // `count` frames, a power of two, whose first gfn is a multiple of `count`,
  // never used before, each with one reference.
  std::optional<Gfn> AllocateRun(uint64_t count);

  // Of a frame that was not allocated these do nothing, and it has none: what a
  // guest reads from its tables is not to be trusted, its memory may be taken
  // away while it runs.
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
  // The last reference frees it.
  void Drop(Gfn gfn);

  uint64_t frames_in_use() const { return references_.size(); }

 private:
  GpaSpace space_;
  uint64_t bottom_ = 0;  // pages of `space_` below were handed out one by one
  uint64_t top_;         // pages from here on were handed out in runs
  // There is no run of so many, and none will be again.
  uint64_t too_many_ = ~uint64_t{0};
  std::vector<Gfn> free_;
  std::unordered_map<uint64_t, int> references_;  // by gfn
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_FRAME_ALLOCATOR_H_
