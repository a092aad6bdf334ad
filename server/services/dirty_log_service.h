// mmud.v1.DirtyLogService: the dirty log of mmu::Vm over gRPC.

#ifndef SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
#define SERVER_SERVICES_DIRTY_LOG_SERVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe. ReadDirtyPages and HarvestDirtyLog hold nothing of the VM while
// they send.
class DirtyLogServiceImpl final : public RpcService {
 public:
  explicit DirtyLogServiceImpl(DaemonState& state);

  grpc::Status StartDirtyLog(CallContext* context,
                             const v1::StartDirtyLogRequest* request,
                             google::longrunning::Operation* response);
  grpc::Status GetDirtyLog(CallContext* context,
                           const v1::GetDirtyLogRequest* request,
                           v1::GetDirtyLogResponse* response);
  grpc::Status AcquireDirtyLog(CallContext* context,
                               const v1::AcquireDirtyLogRequest* request,
                               v1::AcquireDirtyLogResponse* response);
  grpc::Status SealDirtyLog(CallContext* context,
                            const v1::SealDirtyLogRequest* request,
                            v1::SealDirtyLogResponse* response);
  absl::StatusOr<MessageSource<v1::ReadDirtyPagesResponse>> ReadDirtyPages(
      CallContext* context, const v1::ReadDirtyPagesRequest* request);
  grpc::Status ClearDirtyLog(CallContext* context,
                             const v1::ClearDirtyLogRequest* request,
                             v1::ClearDirtyLogResponse* response);
  grpc::Status AcknowledgePages(CallContext* context,
                                const v1::AcknowledgePagesRequest* request,
                                v1::AcknowledgePagesResponse* response);
  grpc::Status StopDirtyLog(CallContext* context,
                            const v1::StopDirtyLogRequest* request,
                            v1::StopDirtyLogResponse* response);
  std::unique_ptr<
      Conversation<v1::HarvestDirtyLogRequest, v1::HarvestDirtyLogResponse>>
  HarvestDirtyLog(CallContext* context, TakeStreamPlace take);
  grpc::Status GetDirtyRate(CallContext* context,
                            const v1::GetDirtyRateRequest* request,
                            v1::GetDirtyRateResponse* response);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
