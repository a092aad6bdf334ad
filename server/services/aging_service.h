// mmud.v1.AgingService over mmu::Vm::Age.

#ifndef SERVER_SERVICES_AGING_SERVICE_H_
#define SERVER_SERVICES_AGING_SERVICE_H_

#include "absl/status/statusor.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class AgingServiceImpl final : public RpcService {
 public:
  explicit AgingServiceImpl(DaemonState& state);

  grpc::Status AgeRange(CallContext* context,
                        const v1::AgeRangeRequest* request,
                        v1::AgeRangeResponse* response);

 private:
  absl::StatusOr<v1::AgeRangeResponse> Age(const CallContext& context,
                                           const v1::AgeRangeRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_AGING_SERVICE_H_
