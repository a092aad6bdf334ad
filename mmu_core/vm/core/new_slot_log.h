// The dirty-log sets of a memslot that begins to log.

#ifndef MMU_CORE_VM_CORE_NEW_SLOT_LOG_H_
#define MMU_CORE_VM_CORE_NEW_SLOT_LOG_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

struct NewSlotLog {
  std::shared_ptr<SlotLog> log;  // null: the slot does not log
  // For the slot itself: the open set, or with rings a companion, or null.
  std::shared_ptr<DirtyBitmap> slot_bitmap;
};

// The sets of a slot of `npages` pages, none of them or all open. Changes
// nothing. RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY.
absl::StatusOr<NewSlotLog> MakeSlotLog(const VmCore& vm, uint32_t slot,
                                       uint64_t npages, InitiallySet open);

// The same for a slot that is about to be made, with all of its pages open, if
// the VM has a log that new slots join; otherwise both pointers are null.
absl::StatusOr<NewSlotLog> PrepareNewSlotLog(const VmCore& vm, uint32_t slot,
                                             uint64_t npages);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_NEW_SLOT_LOG_H_
