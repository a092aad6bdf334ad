// mmud.v1.AgingService over mmu::Vm::Age.

#ifndef SERVER_SERVICES_AGING_SERVICE_H_
#define SERVER_SERVICES_AGING_SERVICE_H_

#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe.
class AgingServiceImpl final : public v1::AgingService::Service {
 public:
  explicit AgingServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status AgeRange(grpc::ServerContext* context,
                        const v1::AgeRangeRequest* request,
                        v1::AgeRangeResponse* response) override;

 private:
  absl::StatusOr<v1::AgeRangeResponse> Age(const grpc::ServerContext& context,
                                           const v1::AgeRangeRequest& request);

  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_AGING_SERVICE_H_
