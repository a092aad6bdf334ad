// mmud.v1.DirtyLogService: the epoch protocol of mmu::Vm over gRPC.

#ifndef SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
#define SERVER_SERVICES_DIRTY_LOG_SERVICE_H_

#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe. GetDirtyLog holds nothing of the VM while it sends.
class DirtyLogServiceImpl final : public v1::DirtyLogService::Service {
 public:
  explicit DirtyLogServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status StartDirtyLog(grpc::ServerContext* context,
                             const v1::StartDirtyLogRequest* request,
                             v1::StartDirtyLogResponse* response) override;
  grpc::Status StopDirtyLog(grpc::ServerContext* context,
                            const v1::StopDirtyLogRequest* request,
                            v1::StopDirtyLogResponse* response) override;
  grpc::Status GetDirtyLog(
      grpc::ServerContext* context, const v1::GetDirtyLogRequest* request,
      grpc::ServerWriter<v1::GetDirtyLogResponse>* writer) override;
  grpc::Status ClearDirtyLog(grpc::ServerContext* context,
                             const v1::ClearDirtyLogRequest* request,
                             v1::ClearDirtyLogResponse* response) override;
  grpc::Status GetDirtyRate(grpc::ServerContext* context,
                            const v1::GetDirtyRateRequest* request,
                            v1::GetDirtyRateResponse* response) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_SERVICE_H_
