// mmud.v1.StatsService over the counters of mmu::Vm.

#ifndef SERVER_SERVICES_STATS_SERVICE_H_
#define SERVER_SERVICES_STATS_SERVICE_H_

#include "grpcpp/support/status.h"
#include "mmud/v1/stats_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class StatsServiceImpl final : public RpcService {
 public:
  explicit StatsServiceImpl(DaemonState& state);

  grpc::Status GetMmuStats(CallContext* context,
                           const v1::GetMmuStatsRequest* request,
                           v1::GetMmuStatsResponse* response);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_STATS_SERVICE_H_
