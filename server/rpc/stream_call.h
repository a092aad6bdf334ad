// One stream of answers, made as its peer takes them.

#ifndef SERVER_RPC_STREAM_CALL_H_
#define SERVER_RPC_STREAM_CALL_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"

namespace mmud {

// Makes the next message; false if none is left.
using ByteSource = std::function<absl::StatusOr<bool>(grpc::ByteBuffer*)>;

// Takes a place among the streams of a VM. LIMIT_EXCEEDED.
using TakeStreamPlace = std::function<absl::Status(absl::string_view vm)>;

// Reads the request, takes a place and begins the stream.
using StreamFunction = std::function<absl::StatusOr<ByteSource>(
    CallContext*, const grpc::ByteBuffer&, const TakeStreamPlace&)>;

// Starts the stream and returns the reactor that gRPC needs. `runtime` and
// `function` outlive it.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStreamCall(
    CallRuntime& runtime, const StreamFunction& function,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request);

}  // namespace mmud

#endif  // SERVER_RPC_STREAM_CALL_H_
