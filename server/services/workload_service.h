// mmud.v1.WorkloadService over mmu::Vm and OperationStore.

#ifndef SERVER_SERVICES_WORKLOAD_SERVICE_H_
#define SERVER_SERVICES_WORKLOAD_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/vm/workload.h"
#include "mmud/v1/workload_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class WorkloadServiceImpl final : public RpcService {
 public:
  explicit WorkloadServiceImpl(DaemonState& state);

  grpc::Status StartWorkload(CallContext* context,
                             const v1::StartWorkloadRequest* request,
                             google::longrunning::Operation* response);
  grpc::Status StopWorkload(CallContext* context,
                            const v1::StopWorkloadRequest* request,
                            v1::StopWorkloadResponse* response);

 private:
  absl::StatusOr<google::longrunning::Operation> Start(
      const v1::StartWorkloadRequest& request);

  DaemonState& state_;
};

v1::WorkloadStatistics ToProto(const mmu::WorkloadProgress& progress);

}  // namespace mmud

#endif  // SERVER_SERVICES_WORKLOAD_SERVICE_H_
