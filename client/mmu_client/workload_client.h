// WorkloadService, typed. What each call does and which errors it has is said
// in proto/mmud/v1/workload_service.proto.

#ifndef CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_
#define CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/workload_service.pb.h"

namespace mmud::client {

class Caller;

// Starts and ends the work of vCPUs.
// Thread-safe.
class WorkloadClient {
 public:
  explicit WorkloadClient(std::shared_ptr<const Caller> caller);
  ~WorkloadClient();
  WorkloadClient(const WorkloadClient&) = delete;
  WorkloadClient& operator=(const WorkloadClient&) = delete;

  absl::StatusOr<google::longrunning::Operation> StartWorkload(
      v1::StartWorkloadRequest request);
  absl::StatusOr<v1::StopWorkloadResponse> StopWorkload(
      v1::StopWorkloadRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_
