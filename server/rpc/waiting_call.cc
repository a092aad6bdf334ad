#include "server/rpc/waiting_call.h"

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/rpc/cut_off.h"
#include "server/rpc/timer.h"

namespace mmud {
namespace {

// States: new -> waiting -> answering -> done. The wait can end by the event,
// by its time, or because the call is cancelled. These may come from several
// threads at once and before Begin has returned. The first of them sets ended_.
// Begin or that thread, whichever is later, has the answer made.
//
// The call lives until OnDone; a timer or a subscription that fires later does
// nothing.
class WaitingCall final : public grpc::ServerUnaryReactor,
                          public std::enable_shared_from_this<WaitingCall> {
 public:
  WaitingCall(CallRuntime& runtime, const WaitFunction& function,
              grpc::CallbackServerContext* context,
              const grpc::ByteBuffer* request, grpc::ByteBuffer* response)
      : runtime_(runtime),
        function_(function),
        context_(*context),
        request_(*request),
        response_(response),
        cut_off_(runtime.timer, *context) {}

  void Start() {
    self_ = shared_from_this();
    absl::StatusOr<Budget::Place> place = runtime_.waits.Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    const absl::Status posted =
        runtime_.short_workers.Post([this] { Begin(); });
    if (!posted.ok()) FinishWith(ToGrpcStatus(posted));
  }

  void OnCancel() override { EndWaiting(); }

  void OnDone() override {
    cut_off_.Ended();
    const std::shared_ptr<WaitingCall> last = std::move(self_);
  }

 private:
  void Begin() {
    absl::StatusOr<Waiting<grpc::ByteBuffer>> waiting =
        function_(&context_, request_);
    if (!waiting.ok()) {
      FinishWith(ToGrpcStatus(waiting.status()));
      return;
    }
    answer_ = std::move(waiting->answer);
    const auto end = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->EndWaiting();
    };
    unsubscribe_ = waiting->subscribe(end);
    if (waiting->until < mmu::MonotonicTime::InfiniteFuture()) {
      timeout_ = runtime_.timer.At(waiting->until, end);
    }
    {
      absl::MutexLock lock(&mu_);
      begun_ = true;
      if (!ended_) return;
    }
    Answer();
  }

  void EndWaiting() {
    {
      absl::MutexLock lock(&mu_);
      if (ended_) return;
      ended_ = true;
      if (!begun_) return;  // Begin sees ended_
    }
    // Prefer a worker: this thread may be gRPC's, an operation's or the
    // timer's, which all have other work. The fallback is safe, because none of
    // them holds a lock and an answer waits for nothing.
    if (!runtime_.short_workers.Post([this] { Answer(); }).ok()) Answer();
  }

  void Answer() {
    unsubscribe_();
    unsubscribe_ = nullptr;
    if (timeout_.has_value()) runtime_.timer.Cancel(*timeout_);
    grpc::Status status =
        context_.IsCancelled()
            ? ToGrpcStatus(ApiError(absl::StatusCode::kCancelled,
                                    mmu::Reason::kCallCancelled,
                                    "the call was cancelled"))
            : ToGrpcStatus(answer_(response_));
    answer_ = nullptr;
    FinishWith(std::move(status));
  }

  void FinishWith(grpc::Status status) {
    if (status.ok()) {
      cut_off_.Arm(runtime_.patience, runtime_.answer_not_taken);
    } else {
      place_.Release();
    }
    Finish(std::move(status));  // and this may be gone
  }

  CallRuntime& runtime_;
  const WaitFunction& function_;
  CallContext context_;
  const grpc::ByteBuffer& request_;
  grpc::ByteBuffer* const response_;
  std::shared_ptr<WaitingCall> self_;
  Budget::Place place_;
  // Set by Begin, used by Answer, which runs after it.
  std::function<absl::Status(grpc::ByteBuffer*)> answer_;
  std::function<void()> unsubscribe_;
  absl::optional<Timer::Ticket> timeout_;
  CutOff cut_off_;

  absl::Mutex mu_;
  bool begun_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerUnaryReactor* StartWaitingCall(CallRuntime& runtime,
                                           const WaitFunction& function,
                                           grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) {
  const auto call = std::make_shared<WaitingCall>(runtime, function, context,
                                                  request, response);
  call->Start();
  return call.get();
}

}  // namespace mmud
