#include "mmu_core/vm/logging/clear_range.h"

#include <cerrno>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/vm/logging/find_log.h"

namespace mmu {

absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words) {
  const auto unaligned = [](const char* field, uint64_t value,
                            const char* rule) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kUnalignedClear, field, EINVAL},
                     Format("%s is page %d: %s", field, value, rule));
  };
  if (first_page % 64 != 0) {
    return unaligned("start_gpa_bytes", first_page,
                     "a clear begins at a multiple of 64 pages of its slot; "
                     "round down and leave the extra bits clear");
  }
  if (slot_pages == 0) return absl::OkStatus();
  if (first_page > slot_pages || page_count > slot_pages - first_page) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidRange, "size_bytes", EINVAL},
        Format("pages %d to %d: the slot has %d; ask within the slot",
               first_page, first_page + page_count, slot_pages));
  }
  if (page_count % 64 != 0 && first_page + page_count != slot_pages) {
    return unaligned("size_bytes", page_count,
                     "a clear covers a multiple of 64 pages, unless it ends "
                     "where its slot ends");
  }
  if (mask_words != (page_count + 63) / 64) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kInvalidBitmap, "bitmap", EINVAL},
        Format("the bitmap has %d words of 64 bits: %d pages need %d",
               mask_words, page_count, (page_count + 63) / 64));
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
