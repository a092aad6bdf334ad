// The rules for the range of pages that a clear or an acknowledgement names.

#ifndef MMU_CORE_VM_LOGGING_CLEAR_RANGE_H_
#define MMU_CORE_VM_LOGGING_CLEAR_RANGE_H_

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// CheckLogRange, and INVALID_ARGUMENT INVALID_BITMAP (EINVAL, DL-23) for a mask
// of `mask_words` words that does not have a bit for each page of the range.
absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words);

// The slot of address space 0, if the range lies within it. Errors as for
// CheckClearRange, and NOT_FOUND MEMSLOT_NOT_FOUND.
absl::StatusOr<const Memslot*> SlotForRange(VmCore& vm, uint32_t slot_id,
                                            uint64_t first_page,
                                            uint64_t page_count,
                                            size_t mask_words)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_CLEAR_RANGE_H_
