// mmud.v1.WorkloadService over mmu::Vm and OperationStore.

#ifndef SERVER_SERVICES_WORKLOAD_SERVICE_H_
#define SERVER_SERVICES_WORKLOAD_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmu_core/vm/workload.h"
#include "mmud/v1/workload_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class WorkloadServiceImpl final : public v1::WorkloadService::Service {
 public:
  explicit WorkloadServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status StartWorkload(grpc::ServerContext* context,
                             const v1::StartWorkloadRequest* request,
                             google::longrunning::Operation* response) override;
  grpc::Status StopWorkload(grpc::ServerContext* context,
                            const v1::StopWorkloadRequest* request,
                            v1::StopWorkloadResponse* response) override;
  grpc::Status PauseVcpus(grpc::ServerContext* context,
                          const v1::PauseVcpusRequest* request,
                          v1::PauseVcpusResponse* response) override;
  grpc::Status ResumeVcpus(grpc::ServerContext* context,
                           const v1::ResumeVcpusRequest* request,
                           v1::ResumeVcpusResponse* response) override;

 private:
  absl::StatusOr<google::longrunning::Operation> Start(
      const v1::StartWorkloadRequest& request);

  DaemonState& state_;
};

v1::WorkloadStatistics ToProto(const mmu::WorkloadProgress& progress);

}  // namespace mmud

#endif  // SERVER_SERVICES_WORKLOAD_SERVICE_H_
