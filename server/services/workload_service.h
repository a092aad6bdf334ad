// mmud.lab.v1.WorkloadService over WorkloadStore and the VMs' workloads.

#ifndef SERVER_SERVICES_WORKLOAD_SERVICE_H_
#define SERVER_SERVICES_WORKLOAD_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class WorkloadServiceImpl final : public RpcService {
 public:
  explicit WorkloadServiceImpl(DaemonState& state);

  grpc::Status StartWorkload(CallContext* context,
                             const lab::v1::StartWorkloadRequest* request,
                             lab::v1::StartWorkloadResponse* response);
  grpc::Status GetWorkload(CallContext* context,
                           const lab::v1::GetWorkloadRequest* request,
                           lab::v1::GetWorkloadResponse* response);
  grpc::Status ListWorkloads(CallContext* context,
                             const lab::v1::ListWorkloadsRequest* request,
                             lab::v1::ListWorkloadsResponse* response);
  grpc::Status StopWorkload(CallContext* context,
                            const lab::v1::StopWorkloadRequest* request,
                            lab::v1::StopWorkloadResponse* response);

 private:
  // The workload of a name. Its state is valid while its VM is used.
  struct Found {
    VmUse vm;
    std::shared_ptr<WorkloadRun> run;
  };
  // Errors: INVALID_NAME, WORKLOAD_NOT_FOUND, VM_DELETED.
  absl::StatusOr<Found> Find(const std::string& name);

  absl::StatusOr<lab::v1::StartWorkloadResponse> Start(
      const lab::v1::StartWorkloadRequest& request);
  absl::StatusOr<lab::v1::ListWorkloadsResponse> List(
      const lab::v1::ListWorkloadsRequest& request);
  // Workloads of all VMs with names after `after`.
  lab::v1::ListWorkloadsResponse ListAfter(std::string after, int page_size);
  absl::StatusOr<lab::v1::StopWorkloadResponse> Stop(const std::string& name);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_WORKLOAD_SERVICE_H_
