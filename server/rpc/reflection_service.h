// Server reflection (grpc.reflection.v1alpha): what services and messages the
// daemon has, for clients without its .proto files.
//
// gRPC brings one, which keeps a thread for each client until that hangs up;
// this one has none.

#ifndef SERVER_RPC_REFLECTION_SERVICE_H_
#define SERVER_RPC_REFLECTION_SERVICE_H_

#include <string>
#include <vector>

#include "grpcpp/impl/service_type.h"
#include "server/rpc/call_runtime.h"

namespace mmud {

// Answers from the descriptors that are linked in. A stream has a place among
// `reflections` of the runtime until it ends, and ends when its peer neither
// asks nor takes an answer for the runtime's patience. Thread-safe. Outlives
// the server.
class ReflectionService final : public grpc::Service {
 public:
  // `services`: full names of those that are served, this one included.
  // `runtime` outlives this.
  ReflectionService(std::vector<std::string> services, CallRuntime& runtime);

 private:
  const std::vector<std::string> services_;
  CallRuntime& runtime_;
};

}  // namespace mmud

#endif  // SERVER_RPC_REFLECTION_SERVICE_H_
