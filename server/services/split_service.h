// mmud.v1.SplitService over mmu::SplitJob, RecoverJob and OperationStore.

#ifndef SERVER_SERVICES_SPLIT_SERVICE_H_
#define SERVER_SERVICES_SPLIT_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class SplitServiceImpl final : public v1::SplitService::Service {
 public:
  explicit SplitServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status SplitHugePages(
      grpc::ServerContext* context, const v1::SplitHugePagesRequest* request,
      google::longrunning::Operation* response) override;
  grpc::Status RecoverHugePages(
      grpc::ServerContext* context, const v1::RecoverHugePagesRequest* request,
      google::longrunning::Operation* response) override;
  grpc::Status UpdateSplit(grpc::ServerContext* context,
                           const v1::UpdateSplitRequest* request,
                           google::longrunning::Operation* response) override;
  grpc::Status PauseSplit(grpc::ServerContext* context,
                          const v1::PauseSplitRequest* request,
                          google::longrunning::Operation* response) override;
  grpc::Status ResumeSplit(grpc::ServerContext* context,
                           const v1::ResumeSplitRequest* request,
                           google::longrunning::Operation* response) override;

 private:
  absl::StatusOr<google::longrunning::Operation> Split(
      const v1::SplitHugePagesRequest& request);
  absl::StatusOr<google::longrunning::Operation> Recover(
      const v1::RecoverHugePagesRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_SPLIT_SERVICE_H_
