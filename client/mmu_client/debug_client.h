// Typed client of DebugService. proto/mmud/v1/debug_service.proto describes the
// calls and their errors.

#ifndef CLIENT_MMU_CLIENT_DEBUG_CLIENT_H_
#define CLIENT_MMU_CLIENT_DEBUG_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {

class Caller;

// Verifies MMU invariants and lists page tables. Thread-safe.
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
