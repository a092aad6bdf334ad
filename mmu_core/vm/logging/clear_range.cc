#include "mmu_core/vm/logging/clear_range.h"

#include <cerrno>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_range.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/vm/logging/find_log.h"

namespace mmu {

absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words) {
  if (absl::Status s = CheckLogRange(slot_pages, first_page, page_count);
      !s.ok() || slot_pages == 0) {
    return s;
  }
  if (mask_words != (page_count + 63) / 64) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidBitmap, "mask", EINVAL},
        Format("the mask has %d words of 64 bits: %d pages need %d", mask_words,
               page_count, (page_count + 63) / 64));
  }
  return absl::OkStatus();
}

absl::StatusOr<const Memslot*> SlotForRange(VmCore& vm, uint32_t slot_id,
                                            uint64_t first_page,
                                            uint64_t page_count,
                                            size_t mask_words) {
  // Checked before the slot is even looked up (DL-20).
  if (absl::Status s = CheckClearRange(0, first_page, page_count, mask_words);
      !s.ok()) {
    return s;
  }
  const Memslot* slot = vm.slots.Active(0).FindById(slot_id);
  if (slot == nullptr) return NoSuchSlot(slot_id);
  if (absl::Status s =
          CheckClearRange(slot->npages, first_page, page_count, mask_words);
      !s.ok()) {
    return s;
  }
  return slot;
}

}  // namespace mmu
