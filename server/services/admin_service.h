// mmud.v1.AdminService: what was built and since when it runs.

#ifndef SERVER_SERVICES_ADMIN_SERVICE_H_
#define SERVER_SERVICES_ADMIN_SERVICE_H_

#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/admin_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class AdminServiceImpl final : public v1::AdminService::Service {
 public:
  explicit AdminServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status GetBuildInfo(grpc::ServerContext* context,
                            const v1::GetBuildInfoRequest* request,
                            v1::GetBuildInfoResponse* response) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_ADMIN_SERVICE_H_
