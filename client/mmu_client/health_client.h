// Typed client of grpc.health.v1.Health.

#ifndef CLIENT_MMU_CLIENT_HEALTH_CLIENT_H_
#define CLIENT_MMU_CLIENT_HEALTH_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpc/health/v1/health.pb.h"

namespace mmud::client {

class Caller;

// Thread-safe.
class HealthClient {
 public:
  explicit HealthClient(std::shared_ptr<const Caller> caller);
  ~HealthClient();
  HealthClient(const HealthClient&) = delete;
  HealthClient& operator=(const HealthClient&) = delete;

  // State of one service, for example "mmud.v1.VmService", or of the daemon as
  // a whole for "". NOT_FOUND for a service that it does not have.
  absl::StatusOr<grpc::health::v1::HealthCheckResponse> Check(
      const std::string& service);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_HEALTH_CLIENT_H_
