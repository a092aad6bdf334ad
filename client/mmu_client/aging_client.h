// Typed client of AgingService. proto/mmud/v1/aging_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_AGING_CLIENT_H_
#define CLIENT_MMU_CLIENT_AGING_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

class Caller;

// Finds recently accessed memory, once or as generations of a working set.
// Thread-safe.
class AgingClient {
 public:
  explicit AgingClient(std::shared_ptr<const Caller> caller);
  ~AgingClient();
  AgingClient(const AgingClient&) = delete;
  AgingClient& operator=(const AgingClient&) = delete;

  absl::StatusOr<v1::AgeRangeResponse> AgeRange(v1::AgeRangeRequest request);
  absl::StatusOr<google::longrunning::Operation> CreateGeneration(
      v1::CreateGenerationRequest request);
  absl::StatusOr<v1::GetWorkingSetResponse> GetWorkingSet(
      v1::GetWorkingSetRequest request);
  absl::StatusOr<v1::ListHotRangesResponse> ListHotRanges(
      v1::ListHotRangesRequest request);
  absl::StatusOr<v1::ForgetWorkingSetResponse> ForgetWorkingSet(
      v1::ForgetWorkingSetRequest request);
  absl::StatusOr<v1::GetAgerResponse> GetAger(v1::GetAgerRequest request);
  absl::StatusOr<v1::UpdateAgerResponse> UpdateAger(
      v1::UpdateAgerRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_AGING_CLIENT_H_
