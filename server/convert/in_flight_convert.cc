#include "server/convert/in_flight_convert.h"

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_calls_convert.h"
#include "server/convert/dirty_log_convert.h"

namespace mmud {

absl::StatusOr<PagesInFlight> ToPagesInFlight(const v1::PagesInFlight& proto) {
  PagesInFlight pages;
  const absl::StatusOr<absl::optional<mmu::LogId>> log_id =
      ToLogId(proto.log_id());
  if (!log_id.ok()) return InField(log_id.status(), "in_flight.");
  if (!log_id->has_value()) {
    return InvalidField(mmu::Reason::kInvalidLogId, "in_flight.log_id",
                        "in_flight.log_id is empty; name the log whose epoch "
                        "it is");
  }
  pages.log_id = **log_id;
  pages.epoch = ToEpoch(proto.epoch());
  if (proto.has_range()) {
    const absl::StatusOr<mmu::GfnRange> range =
        ToRange(proto.range(), "in_flight.range");
    if (!range.ok()) return range.status();
    pages.range = *range;
  }
  return pages;
}

}  // namespace mmud
