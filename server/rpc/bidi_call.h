// One conversation: the peer sends messages, and each message has any number of
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

// The daemon's side of a conversation. Used by one thread at a time, not always
// by the same. It is destroyed, and so releases its VM, before the stream's
// status is sent. The same holds if the stream is ended from outside while its
// peer sends nothing or takes nothing.
class ByteConversation {
 public:
  virtual ~ByteConversation() = default;
  // Takes the peer's next message. An error ends the conversation.
  virtual absl::Status Take(const grpc::ByteBuffer& message) = 0;
  // Makes the next answer to that message. False: no answer is left, and the
  // stream listens to the peer again.
  virtual absl::StatusOr<bool> Next(grpc::ByteBuffer* answer) = 0;
};

// Begins a conversation. Once the conversation has learned the name of its VM,
// it calls `take` to take its place among that VM's streams; it may do so as
// long as it lasts.
using BidiFunction = std::function<std::unique_ptr<ByteConversation>(
    CallContext*, TakeStreamPlace take)>;

// Starts the conversation and returns the reactor that gRPC needs. `runtime`
// and `function` outlive it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartBidiCall(
    CallRuntime& runtime, const BidiFunction& function,
    grpc::CallbackServerContext* context);

}  // namespace mmud

#endif  // SERVER_RPC_BIDI_CALL_H_
