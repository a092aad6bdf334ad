// The guest memory that a workload may use, as one contiguous array of pages.
//
// Memslots leave holes in the guest-physical space. GpaSpace hides them from a
// workload: the workload uses page indices and offsets 0..size, and GpaSpace
// translates them to guest-physical addresses.

#ifndef MMU_CORE_GUEST_GPA_SPACE_H_
#define MMU_CORE_GUEST_GPA_SPACE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {

// A value, immutable after construction. Thread-compatible.
class GpaSpace {
 public:
  // An empty space.
  GpaSpace() = default;

  // Concatenates the ranges in the given order. INVALID_ARGUMENT if a range is
  // empty, ends above 2^52 bytes or overlaps another one. No ranges make an
  // empty space.
  static absl::StatusOr<GpaSpace> Create(std::vector<GfnRange> ranges);

  uint64_t pages() const { return pages_; }
  uint64_t size_bytes() const { return pages_ << kPageShift; }
  const std::vector<GfnRange>& ranges() const { return ranges_; }

  // REQUIRES: page < pages().
  Gfn PageAt(uint64_t page) const;
  // REQUIRES: offset_bytes < size_bytes().
  Gpa At(uint64_t offset_bytes) const;
  bool Contains(Gpa gpa) const;

  // The pages [first_page, first_page + pages) of this space. REQUIRES: they
  // are all inside this space.
  GpaSpace Slice(uint64_t first_page, uint64_t pages) const;

  // The share of vCPU `index` of `count`. The shares are disjoint, cover the
  // space, keep its order and differ by at most one page. If there are fewer
  // pages than vCPUs, some shares are empty. REQUIRES: index < count.
  GpaSpace Share(uint32_t index, uint32_t count) const;

 private:
  void Append(GfnRange range);

  std::vector<GfnRange> ranges_;
  std::vector<uint64_t> first_page_;  // of each range, in this space
  uint64_t pages_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_GPA_SPACE_H_
