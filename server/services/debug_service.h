// mmud.v1.DebugService over mmu::Vm.

#ifndef SERVER_SERVICES_DEBUG_SERVICE_H_
#define SERVER_SERVICES_DEBUG_SERVICE_H_

#include "grpcpp/support/status.h"
#include "mmud/v1/debug_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Refuses every call unless --enable_debug_service. Thread-safe.
class DebugServiceImpl final : public RpcService {
 public:
  explicit DebugServiceImpl(DaemonState& state);

  grpc::Status RunAudit(CallContext* context,
                        const v1::RunAuditRequest* request,
                        v1::RunAuditResponse* response);
  grpc::Status ListPageTables(CallContext* context,
                              const v1::ListPageTablesRequest* request,
                              v1::ListPageTablesResponse* response);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DEBUG_SERVICE_H_
