// Typed client of google.longrunning.Operations: waits for long work and reads
// its result.

#ifndef CLIENT_MMU_CLIENT_OPERATIONS_CLIENT_H_
#define CLIENT_MMU_CLIENT_OPERATIONS_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {

class Caller;

// Thread-safe. Errors: OPERATION_NOT_FOUND, INVALID_NAME.
class OperationsClient {
 public:
  explicit OperationsClient(std::shared_ptr<const Caller> caller);
  ~OperationsClient();
  OperationsClient(const OperationsClient&) = delete;
  OperationsClient& operator=(const OperationsClient&) = delete;

  absl::StatusOr<google::longrunning::ListOperationsResponse> List(
      google::longrunning::ListOperationsRequest request);
  absl::StatusOr<google::longrunning::Operation> Get(const std::string& name);
  absl::Status Cancel(const std::string& name);
  absl::Status Delete(const std::string& name);

  // Waits up to `timeout` until the operation is done. Returns its state, done
  // or not; a failed operation is not an error of this call.
  absl::StatusOr<google::longrunning::Operation> Wait(const std::string& name,
                                                      absl::Duration timeout);

  // Waits until the operation is done. DEADLINE_EXCEEDED after `limit`; the
  // operation continues. Calls `on_update` with each state, at least every
  // `interval`, including the last one. If `on_update` returns an error, the
  // wait ends and the operation continues.
  absl::StatusOr<google::longrunning::Operation> Await(
      const std::string& name, absl::Duration interval,
      absl::FunctionRef<absl::Status(const google::longrunning::Operation&)>
          on_update,
      absl::Duration limit = absl::InfiniteDuration());

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

// The response of a finished operation as a `Response`; its error if it failed.
// FAILED_PRECONDITION if it still runs, INTERNAL for another kind of response.
template <typename Response>
absl::StatusOr<Response> OperationResponse(
    const google::longrunning::Operation& operation) {
  if (!operation.done()) {
    return absl::FailedPreconditionError(operation.name() + " still runs");
  }
  if (operation.has_error()) return FromRpcStatus(operation.error());
  Response response;
  if (!operation.response().UnpackTo(&response)) {
    return absl::InternalError(operation.name() + " has a response of type " +
                               operation.response().type_url());
  }
  return response;
}

// The metadata of an operation as a `Metadata`. INTERNAL for another kind.
template <typename Metadata>
absl::StatusOr<Metadata> OperationMetadata(
    const google::longrunning::Operation& operation) {
  Metadata metadata;
  if (!operation.metadata().UnpackTo(&metadata)) {
    return absl::InternalError(operation.name() + " has metadata of type " +
                               operation.metadata().type_url());
  }
  return metadata;
}

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_OPERATIONS_CLIENT_H_
