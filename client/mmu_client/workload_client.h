// Typed client of mmud.lab.v1.WorkloadService.
// proto/mmud/lab/v1/workload_service.proto describes the calls and their
// errors.

#ifndef CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_
#define CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmud/lab/v1/workload_service.pb.h"

namespace mmud::client {

class Caller;

// Starts, returns and stops workloads.
// Thread-safe.
class WorkloadClient {
 public:
  explicit WorkloadClient(std::shared_ptr<const Caller> caller);
  ~WorkloadClient();
  WorkloadClient(const WorkloadClient&) = delete;
  WorkloadClient& operator=(const WorkloadClient&) = delete;

  absl::StatusOr<lab::v1::StartWorkloadResponse> StartWorkload(
      lab::v1::StartWorkloadRequest request);
  absl::StatusOr<lab::v1::GetWorkloadResponse> GetWorkload(
      lab::v1::GetWorkloadRequest request);
  absl::StatusOr<lab::v1::ListWorkloadsResponse> ListWorkloads(
      lab::v1::ListWorkloadsRequest request);
  absl::StatusOr<lab::v1::StopWorkloadResponse> StopWorkload(
      lab::v1::StopWorkloadRequest request);

  // Waits until the workload has ended, and returns it. A failed workload is
  // not an error of this call. DEADLINE_EXCEEDED after `limit`; the workload
  // continues. Gets the workload every 50 ms, later every 500 ms, and calls
  // `on_update` with each state, including the last one. If `on_update` returns
  // an error, the wait ends and the workload continues.
  absl::StatusOr<lab::v1::Workload> AwaitEnd(
      const std::string& name,
      absl::FunctionRef<absl::Status(const lab::v1::Workload&)> on_update,
      absl::Duration limit = absl::InfiniteDuration());

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_WORKLOAD_CLIENT_H_
