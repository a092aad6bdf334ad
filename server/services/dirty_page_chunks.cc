#include "server/services/dirty_page_chunks.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_codec.h"
#include "server/convert/dirty_log_stream_convert.h"

namespace mmud {
namespace {

// Number of pages whose bits fit into a message.
uint64_t PiecePages(int64_t message_bytes) {
  return static_cast<uint64_t>(message_bytes) / sizeof(uint64_t) * 64;
}

}  // namespace

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
