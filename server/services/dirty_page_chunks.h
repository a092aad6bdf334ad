// The chunks of a stream of dirty pages, each read and encoded on request.

#ifndef SERVER_SERVICES_DIRTY_PAGE_CHUNKS_H_
#define SERVER_SERVICES_DIRTY_PAGE_CHUNKS_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"
#include "server/convert/dirty_log_codec.h"
#include "server/convert/dirty_log_stream_convert.h"

namespace mmud {

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

#endif  // SERVER_SERVICES_DIRTY_PAGE_CHUNKS_H_
