// Typed client of AgingService. proto/mmud/v1/aging_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_AGING_CLIENT_H_
#define CLIENT_MMU_CLIENT_AGING_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

class Caller;

// Finds recently accessed memory.
// Thread-safe.
class AgingClient {
 public:
  explicit AgingClient(std::shared_ptr<const Caller> caller);
  ~AgingClient();
  AgingClient(const AgingClient&) = delete;
  AgingClient& operator=(const AgingClient&) = delete;

  absl::StatusOr<v1::AgeRangeResponse> AgeRange(v1::AgeRangeRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_AGING_CLIENT_H_
