#include "client/mmu_client/stats_client.h"

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "client/mmu_client/caller.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/stats_service.pb.h"

namespace mmud::client {

struct StatsClient::Stub {
  std::unique_ptr<v1::StatsService::Stub> stub;
};

StatsClient::StatsClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)),
      stub_(new Stub{v1::StatsService::NewStub(caller_->channel())}) {}

StatsClient::~StatsClient() = default;

absl::StatusOr<v1::GetMmuStatsResponse> StatsClient::GetMmuStats(
    v1::GetMmuStatsRequest request) {
  return caller_->Unary<v1::GetMmuStatsResponse>(
      CallKind::kRead, std::move(request),
      [this](auto* context, const auto& sent, auto* response) {
        return stub_->stub->GetMmuStats(context, sent, response);
      });
}

}  // namespace mmud::client
