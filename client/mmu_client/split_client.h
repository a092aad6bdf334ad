// Typed client of SplitService. proto/mmud/v1/split_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_SPLIT_CLIENT_H_
#define CLIENT_MMU_CLIENT_SPLIT_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {

class Caller;

// Splits and recovers huge mappings.
// Thread-safe.
class SplitClient {
 public:
  explicit SplitClient(std::shared_ptr<const Caller> caller);
  ~SplitClient();
  SplitClient(const SplitClient&) = delete;
  SplitClient& operator=(const SplitClient&) = delete;

  absl::StatusOr<google::longrunning::Operation> SplitHugePages(
      v1::SplitHugePagesRequest request);
  absl::StatusOr<google::longrunning::Operation> RecoverHugePages(
      v1::RecoverHugePagesRequest request);
  absl::StatusOr<google::longrunning::Operation> UpdateSplit(
      v1::UpdateSplitRequest request);
  absl::StatusOr<google::longrunning::Operation> PauseSplit(
      v1::PauseSplitRequest request);
  absl::StatusOr<google::longrunning::Operation> ResumeSplit(
      v1::ResumeSplitRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_SPLIT_CLIENT_H_
