#include "client/mmu_client/split_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {

struct SplitClient::Stub {
  std::unique_ptr<v1::SplitService::Stub> stub;
};

SplitClient::SplitClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::SplitService::NewStub(caller_->channel())}) {}

SplitClient::~SplitClient() = default;

absl::StatusOr<google::longrunning::Operation> SplitClient::SplitHugePages(
    v1::SplitHugePagesRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->SplitHugePages(context, sent, response);
      });
}

absl::StatusOr<google::longrunning::Operation> SplitClient::RecoverHugePages(
    v1::RecoverHugePagesRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->RecoverHugePages(context, sent, response);
      });
}

absl::StatusOr<google::longrunning::Operation> SplitClient::UpdateSplit(
    v1::UpdateSplitRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->UpdateSplit(context, sent, response);
      });
}

absl::StatusOr<google::longrunning::Operation> SplitClient::PauseSplit(
    v1::PauseSplitRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->PauseSplit(context, sent, response);
      });
}

absl::StatusOr<google::longrunning::Operation> SplitClient::ResumeSplit(
    v1::ResumeSplitRequest request) {
  return caller_->Unary<google::longrunning::Operation>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ResumeSplit(context, sent, response);
      });
}

}  // namespace mmud::client
