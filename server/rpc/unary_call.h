// One unary call whose function runs on a worker.

#ifndef SERVER_RPC_UNARY_CALL_H_
#define SERVER_RPC_UNARY_CALL_H_

#include <functional>

#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "server/base/budget.h"
#include "server/rpc/call_context.h"
#include "server/rpc/worker_pool.h"

namespace mmud {

// From the request's bytes to the answer's.
using UnaryFunction = std::function<grpc::Status(
    CallContext*, const grpc::ByteBuffer&, grpc::ByteBuffer*)>;

// What a unary call takes while it is in hand, and who does it.
struct UnaryKind {
  Budget* budget;
  WorkerPool* workers;
};

// Starts the call and returns what gRPC needs to follow it. `function` and
// `kind` outlive it.
grpc::ServerUnaryReactor* StartUnaryCall(UnaryKind kind,
                                         const UnaryFunction& function,
                                         grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response);

}  // namespace mmud

#endif  // SERVER_RPC_UNARY_CALL_H_
