#include "server/convert/dirty_log_stream_convert.h"

#include <cstddef>
#include <cstdint>
#include <functional>
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

// Number of pages whose bits fit into a message.
uint64_t PiecePages(int64_t message_bytes) {
  return static_cast<uint64_t>(message_bytes) / sizeof(uint64_t) * 64;
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
    const v1::ReadDirtyPagesRequest& request, const ManagedVm& vm) {
  DirtyPagesCall read;
  DirtyPagesRequest& pages = read.pages;
  if (absl::Status status = ReadEpoch(request, &pages); !status.ok()) {
    return status;
  }
  const absl::StatusOr<ChunkForm> form =
      ToChunkForm(request.encoding(), request.max_message_bytes());
  if (!form.ok()) return form.status();
  read.form = *form;
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(request.slots(), vm);
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

DirtyPageChunks::DirtyPageChunks(DirtyLogPlan plan, const ChunkForm& form)
    : form_(form), reader_(std::move(plan), PiecePages(form.message_bytes)) {}

absl::StatusOr<absl::optional<v1::DirtyLogChunk>> DirtyPageChunks::Next(
    const ManagedVm& vm, const std::function<absl::Status()>& keep_going) {
  for (;;) {
    if (piece_.has_value()) {
      if (absl::Status status = keep_going(); !status.ok()) return status;
      absl::optional<v1::DirtyLogChunk> chunk = piece_->Next();
      if (chunk.has_value()) {
        totals_.set_crc32c(PayloadCrc(*chunk, totals_.crc32c()));
        totals_.set_chunk_count(totals_.chunk_count() + 1);
        totals_.set_dirty_page_count(totals_.dirty_page_count() +
                                     CountPages(*chunk));
        return chunk;
      }
      piece_.reset();
    }
    absl::StatusOr<absl::optional<DirtyLogPiece>> read =
        reader_.Next(vm, keep_going);
    if (!read.ok()) return read.status();
    if (!read->has_value()) return absl::optional<v1::DirtyLogChunk>();
    DirtyLogPiece& piece = **read;
    piece_.emplace(piece.slot, piece.start, std::move(piece.words),
                   piece.page_count, form_.encoding,
                   static_cast<size_t>(form_.message_bytes));
  }
}

v1::DirtyLogTrailer DirtyPageChunks::Trailer() const {
  v1::DirtyLogTrailer trailer = totals_;
  *trailer.mutable_cost() = ToProto(reader_.cost());
  return trailer;
}

}  // namespace mmud
