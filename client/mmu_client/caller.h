// Makes all calls of the client library: deadline, request id, retry, errors as
// absl::Status.
//
// Only the .cc files of the service clients include this, so no other code of
// the library depends on gRPC.

#ifndef CLIENT_MMU_CLIENT_CALLER_H_
#define CLIENT_MMU_CLIENT_CALLER_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/request_id.h"
#include "client/mmu_client/retry_policy.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {

// Thread-safe.
class Caller {
 public:
  Caller(std::shared_ptr<grpc::Channel> channel, ClientOptions options)
      : channel_(std::move(channel)), options_(std::move(options)) {}

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const ClientOptions& options() const { return options_; }

  // Makes a unary call: `attempt(context, request, &response)`. The attempt is
  // repeated while its error is retryable (IsRetryable) and the policy and the
  // deadline allow it. All attempts share one deadline and, if the request has
  // one, one request id, so a mutation whose answer was lost is not done twice.
  template <typename Response, typename Request, typename Attempt>
  absl::StatusOr<Response> Unary(CallKind kind, Request request,
                                 Attempt attempt) const {
    return UnaryUntil<Response>(DeadlineOf(kind), std::move(request), attempt);
  }

  // The same with a deadline of its own.
  template <typename Response, typename Request, typename Attempt>
  absl::StatusOr<Response> UnaryUntil(mmu::MonotonicTime deadline,
                                      Request request, Attempt attempt) const {
    EnsureRequestId(request);
    Response response;
    const absl::Status status = WithRetry(deadline, [&] {
      grpc::ClientContext context;
      Prepare(deadline, &context);
      response.Clear();
      return attempt(&context, request, &response);
    });
    if (!status.ok()) return status;
    return response;
  }

  // Deadline of a call of this kind that begins now.
  mmu::MonotonicTime DeadlineOf(CallKind kind) const {
    return mmu::MonotonicTime::Now() + options_.DeadlineOf(kind);
  }

  // Sets the context's deadline. gRPC fails at once if no daemon answers; the
  // retries wait for it.
  void Prepare(mmu::MonotonicTime deadline, grpc::ClientContext* context) const;

  // Waits before another attempt. While there is no connection, waits for one,
  // but no longer than the given time; otherwise uses options().sleep.
  void Sleep(absl::Duration duration) const;

 private:
  absl::Status WithRetry(mmu::MonotonicTime deadline,
                         absl::FunctionRef<grpc::Status()> attempt) const;

  const std::shared_ptr<grpc::Channel> channel_;
  const ClientOptions options_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CALLER_H_
