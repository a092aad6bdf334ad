// google.longrunning.Operations over OperationStore.

#ifndef SERVER_SERVICES_OPERATIONS_SERVICE_H_
#define SERVER_SERVICES_OPERATIONS_SERVICE_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/empty.pb.h"
#include "grpcpp/support/status.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class OperationsServiceImpl final : public RpcService {
 public:
  explicit OperationsServiceImpl(DaemonState& state);

  grpc::Status ListOperations(
      CallContext* context,
      const google::longrunning::ListOperationsRequest* request,
      google::longrunning::ListOperationsResponse* response);
  grpc::Status GetOperation(
      CallContext* context,
      const google::longrunning::GetOperationRequest* request,
      google::longrunning::Operation* response);
  grpc::Status DeleteOperation(
      CallContext* context,
      const google::longrunning::DeleteOperationRequest* request,
      google::protobuf::Empty* response);
  grpc::Status CancelOperation(
      CallContext* context,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty* response);
  absl::StatusOr<Waiting<google::longrunning::Operation>> WaitOperation(
      CallContext* context,
      const google::longrunning::WaitOperationRequest* request);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_OPERATIONS_SERVICE_H_
