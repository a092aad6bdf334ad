#include "client/mmu_client/aging_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

struct AgingClient::Stub {
  std::unique_ptr<v1::AgingService::Stub> stub;
};

AgingClient::AgingClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::AgingService::NewStub(caller_->channel())}) {}

AgingClient::~AgingClient() = default;

absl::StatusOr<v1::AgeRangeResponse> AgingClient::AgeRange(
    v1::AgeRangeRequest request) {
  return caller_->Unary<v1::AgeRangeResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->AgeRange(context, sent, response);
      });
}

absl::StatusOr<google::longrunning::Operation> AgingClient::CreateGeneration(
    v1::CreateGenerationRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->CreateGeneration(context, sent, response);
      });
}

absl::StatusOr<v1::GetWorkingSetResponse> AgingClient::GetWorkingSet(
    v1::GetWorkingSetRequest request) {
  return caller_->Unary<v1::GetWorkingSetResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetWorkingSet(context, sent, response);
      });
}

absl::StatusOr<v1::ListHotRangesResponse> AgingClient::ListHotRanges(
    v1::ListHotRangesRequest request) {
  return caller_->Unary<v1::ListHotRangesResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListHotRanges(context, sent, response);
      });
}

absl::StatusOr<v1::ForgetWorkingSetResponse> AgingClient::ForgetWorkingSet(
    v1::ForgetWorkingSetRequest request) {
  return caller_->Unary<v1::ForgetWorkingSetResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ForgetWorkingSet(context, sent, response);
      });
}

absl::StatusOr<v1::GetAgerResponse> AgingClient::GetAger(
    v1::GetAgerRequest request) {
  return caller_->Unary<v1::GetAgerResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetAger(context, sent, response);
      });
}

absl::StatusOr<v1::UpdateAgerResponse> AgingClient::UpdateAger(
    v1::UpdateAgerRequest request) {
  return caller_->Unary<v1::UpdateAgerResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->UpdateAger(context, sent, response);
      });
}

}  // namespace mmud::client
