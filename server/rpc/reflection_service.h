// Server reflection (grpc.reflection.v1alpha): lists the daemon's services and
// messages for clients without its .proto files.
//
// gRPC's own implementation keeps a thread for each client until the client
// hangs up; this one needs no thread.

#ifndef SERVER_RPC_REFLECTION_SERVICE_H_
#define SERVER_RPC_REFLECTION_SERVICE_H_

#include <string>
#include <vector>

#include "grpcpp/impl/service_type.h"
#include "server/rpc/call_runtime.h"

namespace mmud {

// Answers from the linked-in descriptors. A stream has a place among
// `reflections` of the runtime until it ends. It ends if its peer neither asks
// nor takes an answer for the runtime's patience. Thread-safe. Outlives the
// server.
class ReflectionService final : public grpc::Service {
 public:
  // `services`: full names of the served services, including this one.
  // `runtime` outlives this.
  ReflectionService(std::vector<std::string> services, CallRuntime& runtime);

 private:
  const std::vector<std::string> services_;
  CallRuntime& runtime_;
};

}  // namespace mmud

#endif  // SERVER_RPC_REFLECTION_SERVICE_H_
