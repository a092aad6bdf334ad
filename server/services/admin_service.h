// mmud.v1.AdminService: the daemon's build and the time since when it runs.

#ifndef SERVER_SERVICES_ADMIN_SERVICE_H_
#define SERVER_SERVICES_ADMIN_SERVICE_H_

#include "grpcpp/support/status.h"
#include "mmud/v1/admin_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class AdminServiceImpl final : public RpcService {
 public:
  explicit AdminServiceImpl(DaemonState& state);

  grpc::Status GetBuildInfo(CallContext* context,
                            const v1::GetBuildInfoRequest* request,
                            v1::GetBuildInfoResponse* response);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_ADMIN_SERVICE_H_
