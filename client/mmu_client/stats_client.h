// Typed client of StatsService. proto/mmud/v1/stats_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_STATS_CLIENT_H_
#define CLIENT_MMU_CLIENT_STATS_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/stats_service.pb.h"

namespace mmud::client {

class Caller;

// Returns the MMU's statistics.
// Thread-safe.
class StatsClient {
 public:
  explicit StatsClient(std::shared_ptr<const Caller> caller);
  ~StatsClient();
  StatsClient(const StatsClient&) = delete;
  StatsClient& operator=(const StatsClient&) = delete;

  absl::StatusOr<v1::GetMmuStatsResponse> GetMmuStats(
      v1::GetMmuStatsRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_STATS_CLIENT_H_
