// DirtyLogService, typed. What each call does and which errors it has is said
// in proto/mmud/v1/dirty_log_service.proto. To harvest with nothing lost use
// Harvester (harvester.h) instead of GetDirtyLog and ClearDirtyLog.

#ifndef CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_
#define CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
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

  absl::StatusOr<v1::StartDirtyLogResponse> StartDirtyLog(
      v1::StartDirtyLogRequest request);
  absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
      v1::StopDirtyLogRequest request);
  absl::StatusOr<v1::ClearDirtyLogResponse> ClearDirtyLog(
      v1::ClearDirtyLogRequest request);
  absl::StatusOr<v1::GetDirtyRateResponse> GetDirtyRate(
      v1::GetDirtyRateRequest request);

  // One attempt: calls `on_message` with each message as it comes. An error
  // that it returns ends the stream and is returned.
  absl::Status GetDirtyLogOnce(
      const v1::GetDirtyLogRequest& request,
      absl::FunctionRef<absl::Status(const v1::GetDirtyLogResponse&)>
          on_message);

  // Waits between two attempts, as the options of the connection say.
  void Sleep(absl::Duration duration) const;

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DIRTY_LOG_CLIENT_H_
