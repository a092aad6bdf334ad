// One unary call that waits for something to happen and has no thread
// meanwhile.

#ifndef SERVER_RPC_WAITING_CALL_H_
#define SERVER_RPC_WAITING_CALL_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "mmu_core/base/clock.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"

namespace mmud {

// How to wait and what to say then. All functions may be called by any thread,
// and never wait.
template <typename Response>
struct Waiting {
  // Answered then at the latest.
  mmu::MonotonicTime until = mmu::MonotonicTime::InfiniteFuture();
  // Has the given function called once when what is waited for has happened,
  // at once if it has. Returns how to give that up; not called after
  // that any more, though it may be running.
  std::function<std::function<void()>(std::function<void()>)> subscribe;
  // The answer, called once: it happened, or the time is over.
  std::function<absl::Status(Response*)> answer;
};

using WaitFunction = std::function<absl::StatusOr<Waiting<grpc::ByteBuffer>>(
    CallContext*, const grpc::ByteBuffer&)>;

// Starts the call and returns what gRPC needs to follow it. `runtime` and
// `function` outlive it.
grpc::ServerUnaryReactor* StartWaitingCall(CallRuntime& runtime,
                                           const WaitFunction& function,
                                           grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response);

}  // namespace mmud

#endif  // SERVER_RPC_WAITING_CALL_H_
