// mmud.v1.VmService over VmRegistry.

#ifndef SERVER_SERVICES_VM_SERVICE_H_
#define SERVER_SERVICES_VM_SERVICE_H_

#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class VmServiceImpl final : public v1::VmService::Service {
 public:
  explicit VmServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status CreateVm(grpc::ServerContext* context,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse* response) override;
  grpc::Status GetVm(grpc::ServerContext* context,
                     const v1::GetVmRequest* request,
                     v1::GetVmResponse* response) override;
  grpc::Status ListVms(grpc::ServerContext* context,
                       const v1::ListVmsRequest* request,
                       v1::ListVmsResponse* response) override;
  grpc::Status DeleteVm(grpc::ServerContext* context,
                        const v1::DeleteVmRequest* request,
                        v1::DeleteVmResponse* response) override;
  grpc::Status GetCapabilities(grpc::ServerContext* context,
                               const v1::GetCapabilitiesRequest* request,
                               v1::GetCapabilitiesResponse* response) override;
  grpc::Status SetMemslot(grpc::ServerContext* context,
                          const v1::SetMemslotRequest* request,
                          v1::SetMemslotResponse* response) override;
  grpc::Status DeleteMemslot(grpc::ServerContext* context,
                             const v1::DeleteMemslotRequest* request,
                             v1::DeleteMemslotResponse* response) override;
  grpc::Status SetShadowPageLimit(
      grpc::ServerContext* context,
      const v1::SetShadowPageLimitRequest* request,
      v1::SetShadowPageLimitResponse* response) override;

 private:
  absl::StatusOr<v1::CreateVmResponse> Create(
      const v1::CreateVmRequest& request);
  absl::StatusOr<v1::SetMemslotResponse> Set(
      const v1::SetMemslotRequest& request);
  absl::StatusOr<v1::DeleteMemslotResponse> Delete(
      const v1::DeleteMemslotRequest& request);
  absl::StatusOr<v1::SetShadowPageLimitResponse> SetLimit(
      const v1::SetShadowPageLimitRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_VM_SERVICE_H_
