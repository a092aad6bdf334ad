// mmud.v1.SplitService over mmu::SplitJob, RecoverJob and OperationStore.

#ifndef SERVER_SERVICES_SPLIT_SERVICE_H_
#define SERVER_SERVICES_SPLIT_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/split_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class SplitServiceImpl final : public RpcService {
 public:
  explicit SplitServiceImpl(DaemonState& state);

  grpc::Status SplitHugePages(CallContext* context,
                              const v1::SplitHugePagesRequest* request,
                              google::longrunning::Operation* response);
  grpc::Status RecoverHugePages(CallContext* context,
                                const v1::RecoverHugePagesRequest* request,
                                google::longrunning::Operation* response);
  grpc::Status UpdateSplit(CallContext* context,
                           const v1::UpdateSplitRequest* request,
                           google::longrunning::Operation* response);
  grpc::Status PauseSplit(CallContext* context,
                          const v1::PauseSplitRequest* request,
                          google::longrunning::Operation* response);
  grpc::Status ResumeSplit(CallContext* context,
                           const v1::ResumeSplitRequest* request,
                           google::longrunning::Operation* response);

 private:
  absl::StatusOr<google::longrunning::Operation> Split(
      const v1::SplitHugePagesRequest& request);
  absl::StatusOr<google::longrunning::Operation> Recover(
      const v1::RecoverHugePagesRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_SPLIT_SERVICE_H_
