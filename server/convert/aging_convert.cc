#include "server/convert/aging_convert.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/errors.h"
#include "server/convert/aged_mmus_convert.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr uint64_t kMaxUnits = uint64_t{4} << 20;

// Errors: INVALID_AGING_MODE.
absl::StatusOr<mmu::AgeMode> ToMode(const v1::AgeRangeRequest& request) {
  if (request.mode() != v1::AGING_MODE_TEST &&
      request.mode() != v1::AGING_MODE_TEST_AND_CLEAR) {
    return WrongValue(mmu::Reason::kInvalidAgingMode, "mode",
                      static_cast<int>(request.mode()),
                      "TEST or TEST_AND_CLEAR");
  }
  return request.mode() == v1::AGING_MODE_TEST ? mmu::AgeMode::kTest
                                               : mmu::AgeMode::kTestAndClear;
}

// Errors: UNALIGNED, TOO_MANY_PAGES.
absl::Status CheckUnits(const std::vector<mmu::GfnRange>& ranges,
                        mmu::Level granularity) {
  const uint64_t unit = mmu::PagesPer(granularity);
  uint64_t units = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const mmu::GfnRange& range = ranges[i];
    if (!mmu::IsAligned(range.start, granularity) ||
        range.pages() % unit != 0) {
      return InvalidField(mmu::Reason::kUnaligned,
                          absl::StrCat("ranges[", i, "]"),
                          absl::StrCat("ranges[", i,
                                       "] must begin and end on a multiple of "
                                       "granularity, ",
                                       unit << mmu::kPageShift, " bytes"));
    }
    units += range.pages() / unit;
  }
  if (units <= kMaxUnits) return absl::OkStatus();
  return InvalidField(
      mmu::Reason::kTooManyPages, "ranges",
      absl::StrCat("the ranges have ", units, " units; one call may ask for ",
                   kMaxUnits, ": use a larger granularity or more calls"));
}

}  // namespace

absl::StatusOr<AgePlan> ToAgePlan(const v1::AgeRangeRequest& request,
                                  const std::vector<mmu::MemslotInfo>& slots) {
  AgePlan plan;
  const absl::StatusOr<mmu::AgeMode> mode = ToMode(request);
  if (!mode.ok()) return mode.status();
  plan.mode = *mode;
  const absl::StatusOr<mmu::AgeOptions> options =
      ToAgeOptions(request.lock_mode(), request.slow_mmus());
  if (!options.ok()) return options.status();
  plan.options = *options;
  const absl::StatusOr<mmu::Level> level =
      ToLevel(request.granularity(), mmu::Level::k4K, "granularity");
  if (!level.ok()) return level.status();
  plan.granularity = *level;
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request.ranges(), slots, "ranges");
  if (!ranges.ok()) return ranges.status();
  plan.ranges = *std::move(ranges);
  if (request.ranges().empty()) plan.missing = mmu::MissingSlots::kSkip;
  if (absl::Status status = CheckUnits(plan.ranges, plan.granularity);
      !status.ok()) {
    return status;
  }
  return plan;
}

v1::AgeRangeResponse ToResponse(const std::vector<mmu::MmuKind>& mmus,
                                const AgePlan& plan, AgedRanges aged) {
  v1::AgeRangeResponse response;
  for (size_t i = 0; i < plan.ranges.size(); ++i) {
    v1::YoungBitmap* bitmap = response.add_young();
    *bitmap->mutable_range() = ToExtent(plan.ranges[i]);
    bitmap->set_bitmap(std::move(aged.bitmaps[i]));
  }
  response.set_young_page_count(static_cast<int64_t>(aged.young_page_count));
  response.set_old_page_count(static_cast<int64_t>(aged.old_page_count));
  response.set_granularity(ToPageSize(plan.granularity));
  AddMmus(mmus, aged.reach, response.mutable_mmus());
  response.set_was_fast(aged.reach.was_fast);
  *response.mutable_cost() = ToProto(aged.cost);
  return response;
}

}  // namespace mmud
