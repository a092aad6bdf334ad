// The rule for a range of a slot's pages that a clear or an acknowledgement
// names.

#ifndef MMU_CORE_DIRTY_LOG_RANGE_H_
#define MMU_CORE_DIRTY_LOG_RANGE_H_

#include <cstdint>

#include "absl/status/status.h"

namespace mmu {

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
