// mmud.v1.GuestMemoryService: guest memory as a stream of checked chunks.

#ifndef SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_
#define SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_

#include "grpcpp/support/status.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_service.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe. Holds nothing of the VM while a message is sent.
class GuestMemoryServiceImpl final : public RpcService {
 public:
  explicit GuestMemoryServiceImpl(DaemonState& state);

  absl::StatusOr<MessageSource<v1::ReadPagesResponse>> ReadPages(
      CallContext* context, const v1::ReadPagesRequest* request);

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_
