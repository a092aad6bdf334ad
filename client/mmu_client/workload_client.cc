#include "client/mmu_client/workload_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/workload_service.grpc.pb.h"
#include "mmud/v1/workload_service.pb.h"

namespace mmud::client {

struct WorkloadClient::Stub {
  std::unique_ptr<v1::WorkloadService::Stub> stub;
};

WorkloadClient::WorkloadClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::WorkloadService::NewStub(caller_->channel())}) {}

WorkloadClient::~WorkloadClient() = default;

absl::StatusOr<google::longrunning::Operation> WorkloadClient::StartWorkload(
    v1::StartWorkloadRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StartWorkload(context, sent, response);
      });
}

absl::StatusOr<v1::StopWorkloadResponse> WorkloadClient::StopWorkload(
    v1::StopWorkloadRequest request) {
  return caller_->Unary<v1::StopWorkloadResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StopWorkload(context, sent, response);
      });
}

}  // namespace mmud::client
