// HarvestDirtyLog: seal, read, clear and acknowledge on one stream.
//
//   absl::StatusOr<std::unique_ptr<HarvestStream>> stream =
//       client.dirty_log().OpenHarvest(open);   // vm, owner_token, ...
//   (*stream)->Run(delivered_epoch, [&](const v1::DirtyLogChunk& chunk) {
//     ...  // these pages are in flight: copy them
//   });
//
// Needs fewer calls than Harvester, and only as much memory as the stream's
// window. But a broken stream is not resumed. It is unknown then which of its
// clears were done, so acquire the log with a new token: this seals all pages
// again that were not acknowledged.

#ifndef CLIENT_MMU_CLIENT_HARVEST_STREAM_H_
#define CLIENT_MMU_CLIENT_HARVEST_STREAM_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// After a call has failed, all later calls fail. Thread-compatible.
class HarvestStream {
 public:
  // Both ends of the stream; DirtyLogClient makes one.
  class Pipe {
   public:
    virtual ~Pipe() = default;
    // False once the stream has ended.
    virtual bool Write(const v1::HarvestDirtyLogRequest& message) = 0;
    virtual bool Read(v1::HarvestDirtyLogResponse* message) = 0;
    // Ends the writes and returns the status of the stream. Drops messages that
    // were not read.
    virtual absl::Status Finish() = 0;
  };

  explicit HarvestStream(std::unique_ptr<Pipe> pipe);
  ~HarvestStream();
  HarvestStream(const HarvestStream&) = delete;
  HarvestStream& operator=(const HarvestStream&) = delete;

  // Sends the first message and waits for the answer, which has the state of
  // the log. Call once.
  absl::Status Open(const v1::HarvestOpen& open);

  // The log, as it was when the stream was opened.
  const v1::DirtyLog& log() const { return log_; }

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none), seals, and
  // clears every chunk. Calls `on_cleared` with each chunk when its pages are
  // in flight. An error of `on_cleared` ends the stream and is returned.
  // DATA_LOSS if a checksum or a total is wrong.
  absl::StatusOr<v1::SealDirtyLogResponse> Run(
      int64_t acknowledged_epoch,
      absl::FunctionRef<absl::Status(const v1::DirtyLogChunk&)> on_cleared);

  absl::StatusOr<v1::AcknowledgePagesResponse> Acknowledge(int64_t epoch);

  // Ends the stream.
  absl::Status Close();

 private:
  absl::Status Send(const v1::HarvestDirtyLogRequest& message);
  // DATA_LOSS if the stream ends without error but too early.
  absl::Status Receive(v1::HarvestDirtyLogResponse* message);
  // Ends the stream. Returns the stream's error if it has one, otherwise
  // `status`.
  absl::Status End(const absl::Status& status);
  absl::Status OnChunk(const v1::HarvestChunk& chunk);

  const std::unique_ptr<Pipe> pipe_;
  absl::Status ended_;  // not OK once the stream is over
  v1::DirtyLog log_;
  // Chunks of this round with an unanswered clear, by their number.
  std::map<int64_t, v1::DirtyLogChunk> chunks_;
  int64_t chunk_count_ = 0;  // of this round
  uint32_t crc_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HARVEST_STREAM_H_
