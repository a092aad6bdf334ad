// The rules for a range of a slot's pages in a dirty log: the range that a
// clear or an acknowledgement names, or that a caller reads.

#ifndef MMU_CORE_DIRTY_LOG_RANGE_H_
#define MMU_CORE_DIRTY_LOG_RANGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/bits.h"

namespace mmu {

// A log hands out and takes whole words of a bitmap, of 64 pages. So a range
// begins at a multiple of 64 pages from its slot's start, and ends at one or
// where the slot does.
constexpr bool MayBeginLogRange(uint64_t page) { return page % kWordBits == 0; }
constexpr bool MayEndLogRange(uint64_t page, uint64_t slot_pages) {
  return page % kWordBits == 0 || page == slot_pages;
}

// Whether pages [first_page, first_page + page_count) of a slot of `slot_pages`
// pages begin at a multiple of 64, and end at one or where the slot does
// (DL-20..22). Of a slot that does not exist `slot_pages` is 0, and only the
// begin is looked at. With EINVAL, about first_page or page_count:
//   INVALID_ARGUMENT UNALIGNED_CLEAR
//   OUT_OF_RANGE     GPA_OUT_OF_RANGE  the range is not within the slot
absl::Status CheckLogRange(uint64_t slot_pages, uint64_t first_page,
                           uint64_t page_count);

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_LOG_RANGE_H_
