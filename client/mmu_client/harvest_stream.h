// HarvestDirtyLog: seal, read, clear and acknowledge on one stream.
//
//   absl::StatusOr<std::unique_ptr<HarvestStream>> stream =
//       client.dirty_log().OpenHarvest(open);   // vm, owner_token, ...
//   (*stream)->Run(delivered_epoch, [&](const v1::DirtyLogChunk& chunk) {
//     ...  // these pages are in flight: copy them
//   });
//
// Fewer calls than Harvester makes, and no more memory than the window of the
// stream holds; but a stream that breaks is not gone on with. Which of its
// clears were done is not known then, so acquire the log with a new token: that
// seals again whatever was not acknowledged.

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

// Thread-compatible. Once a call has failed, all others do.
class HarvestStream {
 public:
  // Both ends of the stream; DirtyLogClient makes one.
  class Pipe {
   public:
    virtual ~Pipe() = default;
    // False once the stream has ended.
    virtual bool Write(const v1::HarvestDirtyLogRequest& message) = 0;
    virtual bool Read(v1::HarvestDirtyLogResponse* message) = 0;
    // Says that no more is written, and returns how the stream ended. What was
    // not read is dropped.
    virtual absl::Status Finish() = 0;
  };

  explicit HarvestStream(std::unique_ptr<Pipe> pipe);
  ~HarvestStream();
  HarvestStream(const HarvestStream&) = delete;
  HarvestStream& operator=(const HarvestStream&) = delete;

  // Sends the first message and waits for the log. To be called once.
  absl::Status Open(const v1::HarvestOpen& open);

  // The log, as it was when the stream was opened.
  const v1::DirtyLog& log() const { return log_; }

  // Acknowledges the epochs up to `acknowledged_epoch` (0: none), seals, and
  // clears every chunk that comes. Calls `on_cleared` with each once its pages
  // are in flight; an error that it returns ends the stream and is returned.
  // DATA_LOSS if a checksum or a total is wrong.
  absl::StatusOr<v1::SealDirtyLogResponse> Run(
      int64_t acknowledged_epoch,
      absl::FunctionRef<absl::Status(const v1::DirtyLogChunk&)> on_cleared);

  absl::StatusOr<v1::AcknowledgePagesResponse> Acknowledge(int64_t epoch);

  // Ends the stream.
  absl::Status Close();

 private:
  absl::Status Send(const v1::HarvestDirtyLogRequest& message);
  // DATA_LOSS if the stream ends well but too early.
  absl::Status Receive(v1::HarvestDirtyLogResponse* message);
  // Ends the stream and returns `status`, or how it ended if that is worse.
  absl::Status End(const absl::Status& status);
  absl::Status OnChunk(const v1::HarvestChunk& chunk);

  const std::unique_ptr<Pipe> pipe_;
  absl::Status ended_;  // not OK once the stream is over
  v1::DirtyLog log_;
  // Chunks of this round whose clear is not answered, by their number.
  std::map<int64_t, v1::DirtyLogChunk> chunks_;
  int64_t chunk_count_ = 0;  // of this round
  uint32_t crc_ = 0;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HARVEST_STREAM_H_
