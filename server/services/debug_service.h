// mmud.v1.DebugService over mmu::Vm.

#ifndef SERVER_SERVICES_DEBUG_SERVICE_H_
#define SERVER_SERVICES_DEBUG_SERVICE_H_

#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Refuses every call unless --enable_debug_service. Thread-safe.
class DebugServiceImpl final : public v1::DebugService::Service {
 public:
  explicit DebugServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status RunAudit(grpc::ServerContext* context,
                        const v1::RunAuditRequest* request,
                        v1::RunAuditResponse* response) override;
  grpc::Status ListPageTables(grpc::ServerContext* context,
                              const v1::ListPageTablesRequest* request,
                              v1::ListPageTablesResponse* response) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DEBUG_SERVICE_H_
