#include "server/convert/dirty_log_stream_convert.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_calls_convert.h"
#include "server/convert/dirty_log_convert.h"

namespace mmud {
namespace {

absl::StatusOr<v1::DirtyLogEncoding> ToEncoding(v1::DirtyLogEncoding encoding) {
  switch (encoding) {
    case v1::DIRTY_LOG_ENCODING_UNSPECIFIED:
    case v1::DIRTY_LOG_ENCODING_AUTO:
      return v1::DIRTY_LOG_ENCODING_AUTO;
    case v1::DIRTY_LOG_ENCODING_BITMAP:
    case v1::DIRTY_LOG_ENCODING_EXTENTS:
      return encoding;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "encoding",
                        static_cast<int>(encoding), "AUTO, BITMAP or EXTENTS");
  }
}

// Reads the log's id and the epoch.
absl::Status ReadEpoch(const v1::ReadDirtyPagesRequest& request,
                       DirtyPagesRequest* pages) {
  const absl::StatusOr<absl::optional<mmu::LogId>> log_id =
      ToLogId(request.log_id());
  if (!log_id.ok()) return log_id.status();
  pages->log_id = *log_id;
  pages->epoch = ToEpoch(request.epoch());
  if (pages->epoch != 0 && !pages->log_id.has_value()) {
    return InvalidField(
        mmu::Reason::kInvalidLogId, "log_id",
        absl::StrCat("log_id is empty and epoch is ", request.epoch(),
                     "; name the log whose epoch it is"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChunkForm> ToChunkForm(v1::DirtyLogEncoding encoding,
                                      int64_t max_message_bytes) {
  const absl::StatusOr<v1::DirtyLogEncoding> known = ToEncoding(encoding);
  if (!known.ok()) return known.status();
  const absl::StatusOr<int64_t> bytes = ToMessageBytes(max_message_bytes);
  if (!bytes.ok()) return bytes.status();
  return ChunkForm{.encoding = *known, .message_bytes = *bytes};
}

absl::StatusOr<DirtyPagesCall> ToDirtyPagesCall(
    const v1::ReadDirtyPagesRequest& request) {
  DirtyPagesCall read;
  DirtyPagesRequest& pages = read.pages;
  if (absl::Status status = ReadEpoch(request, &pages); !status.ok()) {
    return status;
  }
  const absl::StatusOr<ChunkForm> form =
      ToChunkForm(request.encoding(), request.max_message_bytes());
  if (!form.ok()) return form.status();
  read.form = *form;
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(request.slots());
  if (!slots.ok()) return slots.status();
  pages.slots = *std::move(slots);
  if (request.has_range()) {
    if (pages.slots.size() != 1) {
      return InvalidField(
          mmu::Reason::kInvalidRange, "range",
          absl::StrCat("range is set and slots has ", pages.slots.size(),
                       " entries; name the one slot that it belongs to"));
    }
    const absl::StatusOr<mmu::GfnRange> range =
        ToRange(request.range(), "range");
    if (!range.ok()) return range.status();
    pages.range = *range;
  }
  if (request.has_start()) {
    pages.start = {.slot = request.start().slot(),
                   .gpa_bytes = request.start().gpa_bytes()};
  }
  return read;
}

v1::DirtyLogHeader HeaderOf(const DirtyLogPlan& plan) {
  v1::DirtyLogHeader header;
  header.set_log_id(plan.log_id.ToString());
  header.set_epoch(static_cast<int64_t>(plan.epoch));
  for (const SlotPlan& slot : plan.slots) {
    v1::SlotCoverage* coverage = header.add_coverage();
    coverage->set_slot(static_cast<int32_t>(slot.slot));
    coverage->set_gpa_bytes(static_cast<int64_t>(
        (slot.slot_start + (slot.first_page << mmu::kPageShift)).value()));
    coverage->set_size_bytes(static_cast<int64_t>(
        (slot.end_page - slot.first_page) << mmu::kPageShift));
  }
  return header;
}

}  // namespace mmud
