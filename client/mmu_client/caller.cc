#include "client/mmu_client/caller.h"

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/retry_policy.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "server/rpc/grpc_time.h"

namespace mmud::client {

void Caller::Prepare(mmu::MonotonicTime deadline,
                     grpc::ClientContext* context) const {
  context->set_deadline(ToGrpcTime(deadline));
  context->set_wait_for_ready(false);
}

void Caller::Sleep(absl::Duration duration) const {
  switch (channel_->GetState(/*try_to_connect=*/false)) {
    case GRPC_CHANNEL_READY:
    case GRPC_CHANNEL_SHUTDOWN:  // also what a channel within a process says
      options_.sleep(duration);
      return;
    case GRPC_CHANNEL_IDLE:
    case GRPC_CHANNEL_CONNECTING:
    case GRPC_CHANNEL_TRANSIENT_FAILURE:
      break;
  }
  // Not a plain sleep: gRPC makes progress with a connection only while a call
  // waits for it, apart from a check every 5 s.
  channel_->WaitForConnected(ToGrpcTime(mmu::MonotonicTime::Now() + duration));
}

absl::Status Caller::WithRetry(
    mmu::MonotonicTime deadline,
    absl::FunctionRef<grpc::Status()> attempt) const {
  Backoff backoff(options_.retry);
  while (true) {
    const absl::Status status = FromGrpcStatus(attempt());
    if (!IsRetryable(status) || !backoff.MayRetry()) return status;
    const absl::Duration delay = backoff.NextDelay(status);
    // The deadline would pass during the wait, and DEADLINE_EXCEEDED would say
    // less than the present error.
    if (mmu::MonotonicTime::Now() + delay >= deadline) return status;
    Sleep(delay);
  }
}

}  // namespace mmud::client
