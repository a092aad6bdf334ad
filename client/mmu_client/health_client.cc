#include "client/mmu_client/health_client.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/health/v1/health.pb.h"

namespace mmud::client {

namespace health = grpc::health::v1;

struct HealthClient::Stub {
  std::unique_ptr<health::Health::Stub> stub;
};

HealthClient::HealthClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{health::Health::NewStub(caller_->channel())}) {}

HealthClient::~HealthClient() = default;

absl::StatusOr<health::HealthCheckResponse> HealthClient::Check(
    const std::string& service) {
  health::HealthCheckRequest request;
  request.set_service(service);
  return caller_->Unary<health::HealthCheckResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->Check(context, sent, response);
      });
}

}  // namespace mmud::client
