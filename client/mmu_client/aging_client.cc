#include "client/mmu_client/aging_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
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

}  // namespace mmud::client
