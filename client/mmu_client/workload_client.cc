#include "client/mmu_client/workload_client.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/caller.h"
#include "mmu_core/base/clock.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/lab/v1/workload_service.pb.h"

namespace mmud::client {
namespace {

constexpr absl::Duration kFirstInterval = absl::Milliseconds(50);
constexpr absl::Duration kLastInterval = absl::Milliseconds(500);

}  // namespace

struct WorkloadClient::Stub {
  std::unique_ptr<lab::v1::WorkloadService::Stub> stub;
};

WorkloadClient::WorkloadClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{lab::v1::WorkloadService::NewStub(caller_->channel())}) {}

WorkloadClient::~WorkloadClient() = default;

absl::StatusOr<lab::v1::StartWorkloadResponse> WorkloadClient::StartWorkload(
    lab::v1::StartWorkloadRequest request) {
  return caller_->Unary<lab::v1::StartWorkloadResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StartWorkload(context, sent, response);
      });
}

absl::StatusOr<lab::v1::GetWorkloadResponse> WorkloadClient::GetWorkload(
    lab::v1::GetWorkloadRequest request) {
  return caller_->Unary<lab::v1::GetWorkloadResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetWorkload(context, sent, response);
      });
}

absl::StatusOr<lab::v1::ListWorkloadsResponse> WorkloadClient::ListWorkloads(
    lab::v1::ListWorkloadsRequest request) {
  return caller_->Unary<lab::v1::ListWorkloadsResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListWorkloads(context, sent, response);
      });
}

absl::StatusOr<lab::v1::StopWorkloadResponse> WorkloadClient::StopWorkload(
    lab::v1::StopWorkloadRequest request) {
  return caller_->Unary<lab::v1::StopWorkloadResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StopWorkload(context, sent, response);
      });
}

absl::StatusOr<lab::v1::Workload> WorkloadClient::AwaitEnd(
    const std::string& name,
    absl::FunctionRef<absl::Status(const lab::v1::Workload&)> on_update,
    absl::Duration limit) {
  const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + limit;
  lab::v1::GetWorkloadRequest request;
  request.set_name(name);
  absl::Duration interval = kFirstInterval;
  while (true) {
    const absl::StatusOr<lab::v1::GetWorkloadResponse> response =
        GetWorkload(request);
    if (!response.ok()) return response.status();
    const lab::v1::Workload& workload = response->workload();
    if (absl::Status status = on_update(workload); !status.ok()) return status;
    if (workload.state() != lab::v1::WORKLOAD_STATE_RUNNING) return workload;
    const absl::Duration left = deadline - mmu::MonotonicTime::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat(name, " has not ended after ",
                       absl::FormatDuration(limit), "; it continues"));
    }
    caller_->options().sleep(std::min(interval, left));
    interval = std::min(2 * interval, kLastInterval);
  }
}

}  // namespace mmud::client
