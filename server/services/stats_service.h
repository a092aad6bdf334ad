// mmud.v1.StatsService over the counters of mmu::Vm.

#ifndef SERVER_SERVICES_STATS_SERVICE_H_
#define SERVER_SERVICES_STATS_SERVICE_H_

#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class StatsServiceImpl final : public v1::StatsService::Service {
 public:
  explicit StatsServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status GetMmuStats(grpc::ServerContext* context,
                           const v1::GetMmuStatsRequest* request,
                           v1::GetMmuStatsResponse* response) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_STATS_SERVICE_H_
