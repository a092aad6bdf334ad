#include "client/mmu_client/dirty_log_client.h"

#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/stream_call.h"
#include "grpcpp/client_context.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

struct DirtyLogClient::Stub {
  std::unique_ptr<v1::DirtyLogService::Stub> stub;
};

DirtyLogClient::DirtyLogClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::DirtyLogService::NewStub(caller_->channel())}) {}

DirtyLogClient::~DirtyLogClient() = default;

absl::StatusOr<v1::StartDirtyLogResponse> DirtyLogClient::StartDirtyLog(
    v1::StartDirtyLogRequest request) {
  return caller_->Unary<v1::StartDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StartDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::StopDirtyLogResponse> DirtyLogClient::StopDirtyLog(
    v1::StopDirtyLogRequest request) {
  return caller_->Unary<v1::StopDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->StopDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::ClearDirtyLogResponse> DirtyLogClient::ClearDirtyLog(
    v1::ClearDirtyLogRequest request) {
  return caller_->Unary<v1::ClearDirtyLogResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ClearDirtyLog(context, sent, response);
      });
}

absl::StatusOr<v1::GetDirtyRateResponse> DirtyLogClient::GetDirtyRate(
    v1::GetDirtyRateRequest request) {
  return caller_->Unary<v1::GetDirtyRateResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetDirtyRate(context, sent, response);
      });
}

absl::Status DirtyLogClient::GetDirtyLogOnce(
    const v1::GetDirtyLogRequest& request,
    absl::FunctionRef<absl::Status(const v1::GetDirtyLogResponse&)>
        on_message) {
  grpc::ClientContext context;
  caller_->Prepare(caller_->DeadlineOf(CallKind::kStream), &context);
  const auto reader = stub_->stub->GetDirtyLog(&context, request);
  return ReadStream<v1::GetDirtyLogResponse>(context, *reader, on_message);
}

void DirtyLogClient::Sleep(absl::Duration duration) const {
  caller_->Sleep(duration);
}

}  // namespace mmud::client
