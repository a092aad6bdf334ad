// One call of any kind, with messages as bytes. On the wire a unary call is a
// stream of one message in each direction.

#ifndef CLIENT_MMU_CLIENT_RAW_CALL_H_
#define CLIENT_MMU_CLIENT_RAW_CALL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/status.h"

namespace mmud::client {

// Write, WritesDone and Finish must be called from one thread. Messages arrive
// on a thread of gRPC meanwhile, so a stream of requests and a stream of
// responses never wait for each other.
class RawCall
    : private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // Begins a call of `path`, "/package.Service/Method". Calls `on_message` with
  // one message after the other; an error of `on_message` ends the call.
  // `context` is prepared. `context` and the channel must outlive this object.
  RawCall(const std::shared_ptr<grpc::Channel>& channel,
          const std::string& path, grpc::ClientContext* context,
          std::function<absl::Status(const std::string&)> on_message);
  // REQUIRES: Finish returned.
  ~RawCall() override = default;

  // Sends a message and returns when the next one may be sent. False if the
  // call has ended.
  bool Write(const std::string& message);

  // Ends the requests, waits for the end of the responses and returns the
  // status of the call, or the error of `on_message`. Call once.
  absl::Status Finish();

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  grpc::ClientContext* const context_;
  const std::function<absl::Status(const std::string&)> on_message_;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;

  absl::Mutex mu_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool writable_ ABSL_GUARDED_BY(mu_) = true;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  absl::Status message_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_RAW_CALL_H_
