// One unary call that waits for an event and has no thread meanwhile.

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

// How to wait, and how to answer then. All functions may be called by any
// thread, and never wait.
template <typename Response>
struct Waiting {
  // The latest time of the answer.
  mmu::MonotonicTime until = mmu::MonotonicTime::InfiniteFuture();
  // Has the given function called once when the event happens, at once if it
  // has happened already. Returns a function that cancels this: the given
  // function is not called any more after that, though it may still be running.
  std::function<std::function<void()>(std::function<void()>)> subscribe;
  // Makes the answer; called once, after the event or at the latest time.
  std::function<absl::Status(Response*)> answer;
};

using WaitFunction = std::function<absl::StatusOr<Waiting<grpc::ByteBuffer>>(
    CallContext*, const grpc::ByteBuffer&)>;

// Starts the call and returns the reactor that gRPC needs. `runtime` and
// `function` outlive it.
grpc::ServerUnaryReactor* StartWaitingCall(CallRuntime& runtime,
                                           const WaitFunction& function,
                                           grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response);

}  // namespace mmud

#endif  // SERVER_RPC_WAITING_CALL_H_
