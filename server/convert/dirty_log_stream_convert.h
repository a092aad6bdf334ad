// Converts between mmud.v1's messages about a stream of dirty pages and the
// values of server/control/dirty_log_stream.h.

#ifndef SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_stream.h"

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
// Everything but `vm`. INVALID_LOG_ID, INVALID_SLOT, INVALID_RANGE, and the
// errors of ToChunkForm and ToRange.
absl::StatusOr<DirtyPagesCall> ToDirtyPagesCall(
    const v1::ReadDirtyPagesRequest& request);

v1::DirtyLogHeader HeaderOf(const DirtyLogPlan& plan);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_STREAM_CONVERT_H_
