// One unary call whose function runs on a worker. How long it keeps its places:
// call_runtime.h.

#ifndef SERVER_RPC_UNARY_CALL_H_
#define SERVER_RPC_UNARY_CALL_H_

#include <functional>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "server/base/budget.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/worker_pool.h"

namespace mmud {

// Takes a place among the calls of the VM that the request works on, if it
// names one and calls of this kind have such places; or LIMIT_EXCEEDED.
using TakeVmPlace =
    std::function<absl::Status(const google::protobuf::Message& request)>;

// From the request's bytes to the answer's.
using UnaryFunction =
    std::function<grpc::Status(CallContext*, const grpc::ByteBuffer&,
                               const TakeVmPlace&, grpc::ByteBuffer*)>;

// What a unary call takes while it is in hand, and who does it.
struct UnaryKind {
  Budget* budget;
  Budget* budget_of_vm;  // by name; null: VMs have none
  WorkerPool* workers;
};

// Starts the call and returns what gRPC needs to follow it. `runtime`,
// `function` and what `kind` names outlive it.
grpc::ServerUnaryReactor* StartUnaryCall(CallRuntime& runtime, UnaryKind kind,
                                         const UnaryFunction& function,
                                         grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response);

}  // namespace mmud

#endif  // SERVER_RPC_UNARY_CALL_H_
