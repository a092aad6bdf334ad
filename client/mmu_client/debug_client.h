// DebugService, typed. What each call does and which errors it has is said in
// proto/mmud/v1/debug_service.proto.

#ifndef CLIENT_MMU_CLIENT_DEBUG_CLIENT_H_
#define CLIENT_MMU_CLIENT_DEBUG_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {

class Caller;

// Checks MMUs against their own rules, and shows their tables.
// Thread-safe.
class DebugClient {
 public:
  explicit DebugClient(std::shared_ptr<const Caller> caller);
  ~DebugClient();
  DebugClient(const DebugClient&) = delete;
  DebugClient& operator=(const DebugClient&) = delete;

  absl::StatusOr<v1::RunAuditResponse> RunAudit(v1::RunAuditRequest request);
  absl::StatusOr<v1::ListPageTablesResponse> ListPageTables(
      v1::ListPageTablesRequest request);

 private:
  struct Stub;  // of gRPC

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DEBUG_CLIENT_H_
