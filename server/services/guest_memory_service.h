// mmud.v1.GuestMemoryService: guest memory as a stream of checked chunks.

#ifndef SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_
#define SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_

#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "server/services/daemon_state.h"

namespace mmud {

// Thread-safe. Holds nothing of the VM while it sends.
class GuestMemoryServiceImpl final : public v1::GuestMemoryService::Service {
 public:
  explicit GuestMemoryServiceImpl(DaemonState& state) : state_(state) {}

  grpc::Status ReadPages(
      grpc::ServerContext* context, const v1::ReadPagesRequest* request,
      grpc::ServerWriter<v1::ReadPagesResponse>* writer) override;

 private:
  DaemonState& state_;
};

}  // namespace mmud

#endif  // SERVER_SERVICES_GUEST_MEMORY_SERVICE_H_
