// Reads a server stream to its end.

#ifndef CLIENT_MMU_CLIENT_STREAM_CALL_H_
#define CLIENT_MMU_CLIENT_STREAM_CALL_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "client/mmu_client/error_info.h"
#include "grpcpp/client_context.h"

namespace mmud::client {

// Calls `on_message` with each message of `reader`. An error of `on_message`
// cancels the call and is returned. Otherwise returns the status of the stream.
template <typename Response, typename Reader>
absl::Status ReadStream(
    grpc::ClientContext& context, Reader& reader,
    absl::FunctionRef<absl::Status(const Response&)> on_message) {
  Response message;
  while (reader.Read(&message)) {
    if (absl::Status status = on_message(message); !status.ok()) {
      context.TryCancel();
      while (reader.Read(&message)) {
      }
      reader.Finish().ok();  // the status only says that we cancelled
      return status;
    }
  }
  return FromGrpcStatus(reader.Finish());
}

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_STREAM_CALL_H_
