// Typed client of DirtyLogService. proto/mmud/v1/dirty_log_service.proto
// describes the calls and their errors. To harvest without losing pages use
// Harvester (harvester.h) instead of sealing, reading and clearing.

#ifndef CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_
#define CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/harvest_stream.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

class Caller;

// Thread-safe.
class DirtyLogClient {
 public:
  explicit DirtyLogClient(std::shared_ptr<const Caller> caller);
  ~DirtyLogClient();
  DirtyLogClient(const DirtyLogClient&) = delete;
  DirtyLogClient& operator=(const DirtyLogClient&) = delete;

  // An operation with a StartDirtyLogResponse.
  absl::StatusOr<google::longrunning::Operation> StartDirtyLog(
      v1::StartDirtyLogRequest request);
  absl::StatusOr<v1::GetDirtyLogResponse> GetDirtyLog(
      v1::GetDirtyLogRequest request);
  absl::StatusOr<v1::AcquireDirtyLogResponse> AcquireDirtyLog(
      v1::AcquireDirtyLogRequest request);
  absl::StatusOr<v1::SealDirtyLogResponse> SealDirtyLog(
      v1::SealDirtyLogRequest request);
  absl::StatusOr<v1::ClearDirtyLogResponse> ClearDirtyLog(
      v1::ClearDirtyLogRequest request);
  absl::StatusOr<v1::AcknowledgePagesResponse> AcknowledgePages(
      v1::AcknowledgePagesRequest request);
  absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
      v1::StopDirtyLogRequest request);
  absl::StatusOr<v1::GetDirtyRateResponse> GetDirtyRate(
      v1::GetDirtyRateRequest request);

  // Makes one attempt. Calls `on_message` with each message when it arrives. An
  // error of `on_message` ends the stream and is returned.
  absl::Status ReadDirtyPagesOnce(
      const v1::ReadDirtyPagesRequest& request,
      absl::FunctionRef<absl::Status(const v1::ReadDirtyPagesResponse&)>
          on_message);

  // Opens a stream of HarvestDirtyLog, with one attempt. The stream has no
  // deadline: it ends with the daemon, the connection or the caller.
  absl::StatusOr<std::unique_ptr<HarvestStream>> OpenHarvest(
      const v1::HarvestOpen& open);

  // Waits between two attempts, as the options of the connection say.
  void Sleep(absl::Duration duration) const;

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_
