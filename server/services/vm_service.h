// mmud.v1.VmService over VmRegistry.

#ifndef SERVER_SERVICES_VM_SERVICE_H_
#define SERVER_SERVICES_VM_SERVICE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class VmServiceImpl final : public RpcService {
 public:
  explicit VmServiceImpl(DaemonState& state);

  grpc::Status CreateVm(CallContext* context,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse* response);
  grpc::Status GetVm(CallContext* context, const v1::GetVmRequest* request,
                     v1::GetVmResponse* response);
  grpc::Status ListVms(CallContext* context, const v1::ListVmsRequest* request,
                       v1::ListVmsResponse* response);
  grpc::Status UpdateVm(CallContext* context,
                        const v1::UpdateVmRequest* request,
                        v1::UpdateVmResponse* response);
  grpc::Status DeleteVm(CallContext* context,
                        const v1::DeleteVmRequest* request,
                        v1::DeleteVmResponse* response);
  grpc::Status PauseVcpus(CallContext* context,
                          const v1::PauseVcpusRequest* request,
                          v1::PauseVcpusResponse* response);
  grpc::Status ResumeVcpus(CallContext* context,
                           const v1::ResumeVcpusRequest* request,
                           v1::ResumeVcpusResponse* response);
  grpc::Status GetCapabilities(CallContext* context,
                               const v1::GetCapabilitiesRequest* request,
                               v1::GetCapabilitiesResponse* response);
  grpc::Status SetMemslot(CallContext* context,
                          const v1::SetMemslotRequest* request,
                          v1::SetMemslotResponse* response);
  grpc::Status GetMemslot(CallContext* context,
                          const v1::GetMemslotRequest* request,
                          v1::GetMemslotResponse* response);
  grpc::Status ListMemslots(CallContext* context,
                            const v1::ListMemslotsRequest* request,
                            v1::ListMemslotsResponse* response);
  grpc::Status DeleteMemslot(CallContext* context,
                             const v1::DeleteMemslotRequest* request,
                             v1::DeleteMemslotResponse* response);

 private:
  absl::StatusOr<v1::CreateVmResponse> Create(
      const v1::CreateVmRequest& request);
  absl::StatusOr<v1::UpdateVmResponse> Update(
      const v1::UpdateVmRequest& request);
  absl::StatusOr<v1::SetMemslotResponse> Set(
      const v1::SetMemslotRequest& request);
  absl::StatusOr<v1::DeleteMemslotResponse> Delete(
      const v1::DeleteMemslotRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_VM_SERVICE_H_
