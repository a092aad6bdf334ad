// One conversation: the peer sends messages, and each has any number of
// answers, which are made as the peer takes them.

#ifndef SERVER_RPC_BIDI_CALL_H_
#define SERVER_RPC_BIDI_CALL_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/stream_call.h"

namespace mmud {

// What the daemon does with a conversation. Used by one thread at a time, not
// always by the same. It goes before the stream's status is sent, and with it
// what it holds of a VM; also when the stream is ended from outside while its
// peer sends nothing, or takes nothing.
class ByteConversation {
 public:
  virtual ~ByteConversation() = default;
  // The peer's next message. An error ends the conversation.
  virtual absl::Status Take(const grpc::ByteBuffer& message) = 0;
  // The next answer to it, or false if there is none left: then the peer is
  // listened to again.
  virtual absl::StatusOr<bool> Next(grpc::ByteBuffer* answer) = 0;
};

// Begins a conversation that takes its place among the streams of a VM once it
// knows which; `take` may be called as long as the conversation lasts.
using BidiFunction = std::function<std::unique_ptr<ByteConversation>(
    CallContext*, TakeStreamPlace take)>;

// Starts the conversation and returns what gRPC needs to follow it. `runtime`
// and `function` outlive it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartBidiCall(
    CallRuntime& runtime, const BidiFunction& function,
    grpc::CallbackServerContext* context);

}  // namespace mmud

#endif  // SERVER_RPC_BIDI_CALL_H_
