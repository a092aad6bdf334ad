#include "client/mmu_client/operations_client.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/caller.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/empty.pb.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {

namespace lro = google::longrunning;

struct OperationsClient::Stub {
  std::unique_ptr<lro::Operations::Stub> stub;
};

OperationsClient::OperationsClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{lro::Operations::NewStub(caller_->channel())}) {}

OperationsClient::~OperationsClient() = default;

absl::StatusOr<lro::ListOperationsResponse> OperationsClient::List(
    lro::ListOperationsRequest request) {
  return caller_->Unary<lro::ListOperationsResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListOperations(context, sent, response);
      });
}

absl::StatusOr<lro::Operation> OperationsClient::Get(const std::string& name) {
  lro::GetOperationRequest request;
  request.set_name(name);
  return caller_->Unary<lro::Operation>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetOperation(context, sent, response);
      });
}

absl::Status OperationsClient::Cancel(const std::string& name) {
  lro::CancelOperationRequest request;
  request.set_name(name);
  return caller_
      ->Unary<google::protobuf::Empty>(
          CallKind::kMutation, std::move(request),
          [this](auto* context, const auto& sent, auto* response) {
            return stub_->stub->CancelOperation(context, sent, response);
          })
      .status();
}

absl::Status OperationsClient::Delete(const std::string& name) {
  lro::DeleteOperationRequest request;
  request.set_name(name);
  return caller_
      ->Unary<google::protobuf::Empty>(
          CallKind::kMutation, std::move(request),
          [this](auto* context, const auto& sent, auto* response) {
            return stub_->stub->DeleteOperation(context, sent, response);
          })
      .status();
}

absl::StatusOr<lro::Operation> OperationsClient::Wait(const std::string& name,
                                                      absl::Duration timeout) {
  lro::WaitOperationRequest request;
  request.set_name(name);
  const int64_t seconds =
      absl::IDivDuration(timeout, absl::Seconds(1), &timeout);
  request.mutable_timeout()->set_seconds(seconds);
  request.mutable_timeout()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(timeout)));
  // The daemon answers when the timeout ends; the deadline is for a daemon
  // that does not.
  return caller_->UnaryUntil<lro::Operation>(
      caller_->DeadlineOf(CallKind::kRead) + absl::Seconds(seconds) + timeout,
      std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->WaitOperation(context, sent, response);
      });
}

absl::StatusOr<lro::Operation> OperationsClient::Await(
    const std::string& name, absl::Duration interval,
    absl::FunctionRef<absl::Status(const lro::Operation&)> on_update,
    absl::Duration limit) {
  const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + limit;
  while (true) {
    const absl::Duration left =
        std::max(deadline - mmu::MonotonicTime::Now(), absl::ZeroDuration());
    absl::StatusOr<lro::Operation> operation =
        Wait(name, std::min(interval, left));
    if (!operation.ok()) return operation;
    if (absl::Status status = on_update(*operation); !status.ok()) {
      return status;
    }
    if (operation->done()) return operation;
    if (mmu::MonotonicTime::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(name, " is not done after ", absl::FormatDuration(limit),
                       "; it continues"));
    }
  }
}

}  // namespace mmud::client
