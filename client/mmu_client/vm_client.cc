#include "client/mmu_client/vm_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {

struct VmClient::Stub {
  std::unique_ptr<v1::VmService::Stub> stub;
};

VmClient::VmClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::VmService::NewStub(caller_->channel())}) {}

VmClient::~VmClient() = default;

absl::StatusOr<v1::CreateVmResponse> VmClient::CreateVm(
    v1::CreateVmRequest request) {
  return caller_->Unary<v1::CreateVmResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->CreateVm(context, sent, response);
      });
}

absl::StatusOr<v1::GetVmResponse> VmClient::GetVm(v1::GetVmRequest request) {
  return caller_->Unary<v1::GetVmResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetVm(context, sent, response);
      });
}

absl::StatusOr<v1::ListVmsResponse> VmClient::ListVms(
    v1::ListVmsRequest request) {
  return caller_->Unary<v1::ListVmsResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListVms(context, sent, response);
      });
}

absl::StatusOr<v1::ListVmsResponse> VmClient::ListAllVms(
    v1::ListVmsRequest request) {
  v1::ListVmsResponse all;
  do {
    const absl::StatusOr<v1::ListVmsResponse> page = ListVms(request);
    if (!page.ok()) return page.status();
    all.mutable_vms()->MergeFrom(page->vms());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

absl::StatusOr<v1::UpdateVmResponse> VmClient::UpdateVm(
    v1::UpdateVmRequest request) {
  return caller_->Unary<v1::UpdateVmResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->UpdateVm(context, sent, response);
      });
}

absl::StatusOr<v1::DeleteVmResponse> VmClient::DeleteVm(
    v1::DeleteVmRequest request) {
  return caller_->Unary<v1::DeleteVmResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->DeleteVm(context, sent, response);
      });
}

absl::StatusOr<v1::PauseVcpusResponse> VmClient::PauseVcpus(
    v1::PauseVcpusRequest request) {
  return caller_->Unary<v1::PauseVcpusResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->PauseVcpus(context, sent, response);
      });
}

absl::StatusOr<v1::ResumeVcpusResponse> VmClient::ResumeVcpus(
    v1::ResumeVcpusRequest request) {
  return caller_->Unary<v1::ResumeVcpusResponse>(
      CallKind::kMutation, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ResumeVcpus(context, sent, response);
      });
}

absl::StatusOr<v1::GetCapabilitiesResponse> VmClient::GetCapabilities(
    v1::GetCapabilitiesRequest request) {
  return caller_->Unary<v1::GetCapabilitiesResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetCapabilities(context, sent, response);
      });
}

absl::StatusOr<v1::SetMemslotResponse> VmClient::SetMemslot(
    v1::SetMemslotRequest request) {
  return caller_->Unary<v1::SetMemslotResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->SetMemslot(context, sent, response);
      });
}

absl::StatusOr<v1::GetMemslotResponse> VmClient::GetMemslot(
    v1::GetMemslotRequest request) {
  return caller_->Unary<v1::GetMemslotResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetMemslot(context, sent, response);
      });
}

absl::StatusOr<v1::ListMemslotsResponse> VmClient::ListMemslots(
    v1::ListMemslotsRequest request) {
  return caller_->Unary<v1::ListMemslotsResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListMemslots(context, sent, response);
      });
}

absl::StatusOr<v1::DeleteMemslotResponse> VmClient::DeleteMemslot(
    v1::DeleteMemslotRequest request) {
  return caller_->Unary<v1::DeleteMemslotResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->DeleteMemslot(context, sent, response);
      });
}

}  // namespace mmud::client
