#include "mmu_core/dirty/log_range.h"

#include <cerrno>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"

namespace mmu {

absl::Status CheckLogRange(uint64_t slot_pages, uint64_t first_page,
                           uint64_t page_count) {
  const auto bytes = [](uint64_t pages) { return pages << kPageShift; };
  if (!MayBeginLogRange(first_page)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kUnalignedClear, "first_page", EINVAL},
        Format("the range begins %d bytes from its slot's start: it must "
               "begin at a multiple of 64 pages from there; round down and "
               "leave the extra pages out",
               bytes(first_page)));
  }
  if (slot_pages == 0) return absl::OkStatus();
  if (first_page > slot_pages || page_count > slot_pages - first_page) {
    return MakeError(
        absl::StatusCode::kOutOfRange,
        {Reason::kGpaOutOfRange, "first_page", EINVAL},
        Format("the range of %d pages begins at page %d of a slot of %d; it "
               "must lie within the slot",
               page_count, first_page, slot_pages));
  }
  if (!MayEndLogRange(first_page + page_count, slot_pages)) {
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        {Reason::kUnalignedClear, "page_count", EINVAL},
        Format("the range covers %d bytes: it must cover a multiple of 64 "
               "pages, unless it ends where its slot ends",
               bytes(page_count)));
  }
  return absl::OkStatus();
}

}  // namespace mmu
