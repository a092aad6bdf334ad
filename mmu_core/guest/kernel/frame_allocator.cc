#include "mmu_core/guest/kernel/frame_allocator.h"

#include "mmu_core/base/check.h"

namespace mmu {

FrameAllocator::FrameAllocator(const GpaSpace& space)
    : space_(space), top_(space.pages()) {}

std::optional<FrameAllocator::Frame> FrameAllocator::Allocate() {
  Frame frame;
  if (!free_.empty()) {
    frame = {.gfn = free_.back(), .recycled = true};
    free_.pop_back();
  } else if (bottom_ < top_) {
    frame = {.gfn = space_.PageAt(bottom_++), .recycled = false};
  } else {
    return std::nullopt;
  }
  references_[frame.gfn.value()] = 1;
  return frame;
}

std::optional<Gfn> FrameAllocator::AllocateRun(uint64_t count) {
  if (count >= too_many_) return std::nullopt;
  for (uint64_t end = top_; end >= bottom_ + count; --end) {
    const Gfn first = space_.PageAt(end - count);
    if (first.value() % count != 0 ||
        space_.PageAt(end - 1) - first != count - 1) {
      continue;
    }
    // Frames above the run, too few for another run, become single free frames.
    for (uint64_t page = end; page < top_; ++page) {
      free_.push_back(space_.PageAt(page));
    }
    top_ = end - count;
    for (uint64_t i = 0; i < count; ++i) references_[first.value() + i] = 1;
    return first;
  }
  too_many_ = count;
  return std::nullopt;
}

void FrameAllocator::Drop(Gfn gfn) {
  const auto it = references_.find(gfn.value());
  if (it == references_.end() || --it->second != 0) return;
  references_.erase(it);
  free_.push_back(gfn);
}

}  // namespace mmu
