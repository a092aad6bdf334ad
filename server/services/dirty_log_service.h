// mmud.v1.DirtyLogService: the epoch protocol of mmu::Vm over gRPC.

#ifndef SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
#define SERVER_SERVICES_DIRTY_LOG_SERVICE_H_

#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe. GetDirtyLog holds nothing of the VM while it sends.
class DirtyLogServiceImpl final : public RpcService {
 public:
  explicit DirtyLogServiceImpl(DaemonState& state);

  grpc::Status StartDirtyLog(CallContext* context,
                             const v1::StartDirtyLogRequest* request,
                             v1::StartDirtyLogResponse* response);
  grpc::Status StopDirtyLog(CallContext* context,
                            const v1::StopDirtyLogRequest* request,
                            v1::StopDirtyLogResponse* response);
  absl::StatusOr<MessageSource<v1::GetDirtyLogResponse>> GetDirtyLog(
      CallContext* context, const v1::GetDirtyLogRequest* request);
  grpc::Status ClearDirtyLog(CallContext* context,
                             const v1::ClearDirtyLogRequest* request,
                             v1::ClearDirtyLogResponse* response);
  grpc::Status GetDirtyRate(CallContext* context,
                            const v1::GetDirtyRateRequest* request,
                            v1::GetDirtyRateResponse* response);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
