// Converts between mmud.v1's messages about a stream of dirty pages and the
// values of server/control/dirty_log_stream.h.

#ifndef SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"
#include "server/convert/dirty_log_codec.h"

namespace mmud {

// Form and size of the chunks.
struct ChunkForm {
  v1::DirtyLogEncoding encoding = v1::DIRTY_LOG_ENCODING_AUTO;
  int64_t message_bytes = 0;
};

// Reads a request's `encoding` and `max_message_bytes`. INVALID_ENUM_VALUE,
// INVALID_MESSAGE_SIZE.
absl::StatusOr<ChunkForm> ToChunkForm(v1::DirtyLogEncoding encoding,
                                      int64_t max_message_bytes);

// A converted request.
struct DirtyPagesCall {
  DirtyPagesRequest pages;
  ChunkForm form;
};
// Everything but `vm`. INVALID_LOG_ID, INVALID_SLOT, MEMSLOT_NOT_FOUND,
// INVALID_RANGE, and the errors of ToChunkForm and ToRange.
absl::StatusOr<DirtyPagesCall> ToDirtyPagesCall(
    const v1::ReadDirtyPagesRequest& request, const ManagedVm& vm);

v1::DirtyLogHeader HeaderOf(const DirtyLogPlan& plan);

// The chunks of one plan, and their totals. Between two calls it holds nothing
// of the VM, but a copy of one piece of its log. The piece has no more bytes
// than a message may have, so at most kMaxMessageBytes (convert.h), however
// many chunks it gives. The chunks are made one by one, on request.
// Thread-compatible.
class DirtyPageChunks {
 public:
  DirtyPageChunks(DirtyLogPlan plan, const ChunkForm& form);

  // The next chunk; nullopt after the last one. `keep_going` is called before
  // each piece and each chunk; its error is returned. LOG_CHANGED,
  // EPOCH_SUPERSEDED, DIRTY_LOG_OFF.
  absl::StatusOr<absl::optional<v1::DirtyLogChunk>> Next(
      const ManagedVm& vm, const std::function<absl::Status()>& keep_going);

  // Totals of the chunks so far.
  v1::DirtyLogTrailer Trailer() const;

 private:
  const ChunkForm form_;
  DirtyLogReader reader_;
  absl::optional<DirtyPageEncoder> piece_;  // read but not fully sent
  v1::DirtyLogTrailer totals_;
};

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_
