#include "server/control/slot_ranges.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/core/range_check.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/errors.h"

namespace mmud {

std::vector<mmu::GfnRange> SlotRanges(
    const std::vector<mmu::MemslotInfo>& slots) {
  std::vector<mmu::GfnRange> ranges;
  for (const mmu::MemslotInfo& slot : slots) {
    const mmu::GfnRange range = mmu::GfnRange::Of(
        mmu::ToGfn(slot.config.gpa), slot.config.size_bytes >> mmu::kPageShift);
    if (!ranges.empty() && ranges.back().end == range.start) {
      ranges.back().end = range.end;
    } else {
      ranges.push_back(range);
    }
  }
  return ranges;
}

absl::Status CheckInsideSlots(mmu::GfnRange range,
                              const std::vector<mmu::GfnRange>& slots,
                              absl::string_view field) {
  return InFields(mmu::CheckInside(range, slots), {{"range", field}});
}

}  // namespace mmud
