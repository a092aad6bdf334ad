// Typed client of AdminService. proto/mmud/v1/admin_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_ADMIN_CLIENT_H_
#define CLIENT_MMU_CLIENT_ADMIN_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/admin_service.pb.h"

namespace mmud::client {

class Caller;

// Describes the daemon.
// Thread-safe.
class AdminClient {
 public:
  explicit AdminClient(std::shared_ptr<const Caller> caller);
  ~AdminClient();
  AdminClient(const AdminClient&) = delete;
  AdminClient& operator=(const AdminClient&) = delete;

  absl::StatusOr<v1::GetBuildInfoResponse> GetBuildInfo(
      v1::GetBuildInfoRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_ADMIN_CLIENT_H_
