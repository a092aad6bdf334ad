#include "server/rpc/stream_call.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/reason.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/rpc/cut_off.h"

namespace mmud {
namespace {

// States:
//   making    a worker runs the function or the source
//   writing   gRPC has a message until OnWriteDone, which may never come while
//             the peer does not read; no thread belongs to the stream
//   finished  Finish was called; OnDone follows
// making -> writing -> making -> ... -> finished. Only the worker in `making`
// and OnWriteDone change the state, so one of them runs at a time. End may come
// at any time and leaves a note for them. While gRPC has a message, which may
// last, End also destroys the source: it will not be called any more, and its
// VM must not wait for the peer.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                         public EndableStream,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  StreamCall(CallRuntime& runtime, const StreamFunction& function,
             grpc::CallbackServerContext* context,
             const grpc::ByteBuffer* request)
      : runtime_(runtime),
        function_(function),
        context_(*context),
        request_(*request),
        cut_off_(runtime.timer, *context) {}

  void Start() {
    self_ = shared_from_this();
    absl::StatusOr<Budget::Place> place = runtime_.streams.Take();
    if (!place.ok()) {
      Finish(ToGrpcStatus(place.status()));
      return;
    }
    place_ = *std::move(place);
    const absl::Status posted =
        runtime_.stream_workers.Post([this] { Begin(); });
    if (!posted.ok()) FinishWith(posted);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
    }
    if (!ok) {
      // The call is over: the peer gets no status, but the metrics do.
      absl::Status status = end();
      if (status.ok()) {
        status =
            ApiError(absl::StatusCode::kCancelled, mmu::Reason::kCallCancelled,
                     "the call was cancelled");
      }
      FinishWith(status);
      return;
    }
    const absl::Status posted =
        runtime_.stream_workers.Post([this] { MakeNext(); });
    if (!posted.ok()) FinishWith(posted);
  }

  void OnDone() override {
    runtime_.open_streams.Remove(this);
    cut_off_.Ended();
    const std::shared_ptr<StreamCall> last = std::move(self_);
  }

  void End(const absl::Status& status, absl::Duration patience) override {
    // Destroyed without the lock.
    ByteSource source;
    Budget::Place place;
    absl::MutexLock lock(&mu_);
    if (end_.ok()) end_ = status;
    if (!writing_) return;
    source = std::exchange(next_, nullptr);
    place = std::move(place_of_vm_);
    // The peer may still read: then it gets the whole status. If it does not
    // read, OnWriteDone(false) follows.
    cut_off_.Arm(patience, end_);
  }

 private:
  void Begin() {
    const auto take = [this](absl::string_view vm) {
      absl::StatusOr<Budget::Place> place = runtime_.streams_per_vm.Take(vm);
      if (!place.ok()) return place.status();
      place_of_vm_ = *std::move(place);
      runtime_.open_streams.Add(shared_from_this(), vm);
      return absl::OkStatus();
    };
    absl::StatusOr<ByteSource> source = function_(&context_, request_, take);
    if (!source.ok()) {
      FinishWith(source.status());
      return;
    }
    next_ = *std::move(source);
    MakeNext();
  }

  void MakeNext() {
    absl::Status status = end();
    if (status.ok()) {
      message_.Clear();
      const absl::StatusOr<bool> made = next_(&message_);
      if (made.ok() && *made) {
        {
          absl::MutexLock lock(&mu_);
          writing_ = end_.ok();
          status = end_;
        }
        if (status.ok()) {
          StartWrite(&message_);
          return;
        }
      } else {
        status = made.status();
      }
    }
    FinishWith(status);
  }

  void FinishWith(const absl::Status& status) {
    // The source releases the VM before the status is sent: a client that has
    // the status may delete the VM at once.
    next_ = nullptr;
    place_of_vm_.Release();
    place_.Release();
    Finish(ToGrpcStatus(status));  // and this may be gone
  }

  absl::Status end() {
    absl::MutexLock lock(&mu_);
    return end_;
  }

  CallRuntime& runtime_;
  const StreamFunction& function_;
  CallContext context_;
  const grpc::ByteBuffer& request_;
  std::shared_ptr<StreamCall> self_;
  // Belongs to the state `making`, one thread at a time. While writing_, End
  // may use next_ and place_of_vm_, under mu_.
  Budget::Place place_;
  Budget::Place place_of_vm_;
  ByteSource next_;
  grpc::ByteBuffer message_;  // belongs to gRPC while writing
  CutOff cut_off_;

  absl::Mutex mu_;
  absl::Status end_ ABSL_GUARDED_BY(mu_);  // how to end; OK: go on
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStreamCall(
    CallRuntime& runtime, const StreamFunction& function,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  const auto call =
      std::make_shared<StreamCall>(runtime, function, context, request);
  call->Start();
  return call.get();
}

}  // namespace mmud
