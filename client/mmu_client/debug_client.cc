#include "client/mmu_client/debug_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {

struct DebugClient::Stub {
  std::unique_ptr<v1::DebugService::Stub> stub;
};

DebugClient::DebugClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::DebugService::NewStub(caller_->channel())}) {}

DebugClient::~DebugClient() = default;

absl::StatusOr<v1::RunAuditResponse> DebugClient::RunAudit(
    v1::RunAuditRequest request) {
  return caller_->Unary<v1::RunAuditResponse>(
      CallKind::kHeavy, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->RunAudit(context, sent, response);
      });
}

absl::StatusOr<v1::ListPageTablesResponse> DebugClient::ListPageTables(
    v1::ListPageTablesRequest request) {
  return caller_->Unary<v1::ListPageTablesResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->ListPageTables(context, sent, response);
      });
}

}  // namespace mmud::client
