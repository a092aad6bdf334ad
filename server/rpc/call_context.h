// The facts about a call that an adapter may use.

#ifndef SERVER_RPC_CALL_CONTEXT_H_
#define SERVER_RPC_CALL_CONTEXT_H_

#include <string>

#include "grpcpp/server_context.h"
#include "mmu_core/base/clock.h"
#include "server/rpc/grpc_time.h"

namespace mmud {

// Valid until the call has been answered. Thread-safe.
class CallContext {
 public:
  explicit CallContext(grpc::CallbackServerContext& context)
      : context_(context) {}

  // The caller cancelled the call or disconnected, or the deadline passed.
  bool IsCancelled() const { return context_.IsCancelled(); }
  // The caller's deadline; InfiniteFuture if it set none.
  mmu::MonotonicTime deadline() const {
    return FromGrpcTime(context_.raw_deadline());
  }
  // Tells calls apart, for the log (server/log/call_log.h).
  const grpc::ServerContextBase* id() const { return &context_; }
  // The caller's address: "ipv4:127.0.0.1:4711", "fd:7" (server/log/peer.h).
  std::string peer() const { return context_.peer(); }

 private:
  grpc::CallbackServerContext& context_;
};

}  // namespace mmud

#endif  // SERVER_RPC_CALL_CONTEXT_H_
