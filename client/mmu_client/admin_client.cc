#include "client/mmu_client/admin_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "mmud/v1/admin_service.grpc.pb.h"
#include "mmud/v1/admin_service.pb.h"

namespace mmud::client {

struct AdminClient::Stub {
  std::unique_ptr<v1::AdminService::Stub> stub;
};

AdminClient::AdminClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::AdminService::NewStub(caller_->channel())}) {}

AdminClient::~AdminClient() = default;

absl::StatusOr<v1::GetBuildInfoResponse> AdminClient::GetBuildInfo(
    v1::GetBuildInfoRequest request) {
  return caller_->Unary<v1::GetBuildInfoResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetBuildInfo(context, sent, response);
      });
}

}  // namespace mmud::client
