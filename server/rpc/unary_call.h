// One unary call whose function runs on a worker. call_runtime.h says how long
// it keeps its places.

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

// Takes a place among the calls of the request's VM, if the request names one
// and calls of this kind have places per VM. LIMIT_EXCEEDED.
using TakeVmPlace =
    std::function<absl::Status(const google::protobuf::Message& request)>;

// Computes the answer's bytes from the request's bytes.
using UnaryFunction =
    std::function<grpc::Status(CallContext*, const grpc::ByteBuffer&,
                               const TakeVmPlace&, grpc::ByteBuffer*)>;

// The budgets that a unary call uses while it lasts, and the workers that run
// it.
struct UnaryKind {
  Budget* budget;
  Budget* budget_of_vm;  // by name; null: no places per VM
  WorkerPool* workers;
};

// Starts the call and returns the reactor that gRPC needs. `runtime`,
// `function` and the objects that `kind` points to outlive it.
grpc::ServerUnaryReactor* StartUnaryCall(CallRuntime& runtime, UnaryKind kind,
                                         const UnaryFunction& function,
                                         grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response);

}  // namespace mmud

#endif  // SERVER_RPC_UNARY_CALL_H_
