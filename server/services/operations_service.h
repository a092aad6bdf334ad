// google.longrunning.Operations over OperationStore.

#ifndef SERVER_SERVICES_OPERATIONS_SERVICE_H_
#define SERVER_SERVICES_OPERATIONS_SERVICE_H_

#include "google/longrunning/operations.grpc.pb.h"
#include "google/protobuf/empty.pb.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class OperationsServiceImpl final
    : public google::longrunning::Operations::Service {
 public:
  explicit OperationsServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status ListOperations(
      grpc::ServerContext* context,
      const google::longrunning::ListOperationsRequest* request,
      google::longrunning::ListOperationsResponse* response) override;
  grpc::Status GetOperation(
      grpc::ServerContext* context,
      const google::longrunning::GetOperationRequest* request,
      google::longrunning::Operation* response) override;
  grpc::Status DeleteOperation(
      grpc::ServerContext* context,
      const google::longrunning::DeleteOperationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::Status CancelOperation(
      grpc::ServerContext* context,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::Status WaitOperation(
      grpc::ServerContext* context,
      const google::longrunning::WaitOperationRequest* request,
      google::longrunning::Operation* response) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_OPERATIONS_SERVICE_H_
