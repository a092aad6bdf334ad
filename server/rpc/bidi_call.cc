#include "server/rpc/bidi_call.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
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

// States:
//   reading   gRPC waits for the peer's next message, until OnReadDone; no
//             thread belongs to the stream
//   making    a worker takes a message or makes an answer
//   writing   gRPC has an answer until OnWriteDone, which may never come while
//             the peer does not read; no thread belongs to the stream
//   finished  Finish was called; OnDone follows
// reading -> making -> writing -> making -> ... -> reading -> ... -> finished.
// As in a StreamCall, only the worker in `making` and gRPC's callbacks change
// the state. End may come at any time. In `making` it only leaves a note. In
// the other states it also destroys the conversation, which will not be called
// any more. In `reading` the peer gets the status at once. In `writing` the
// peer gets a limited time to take the answer before the status.
class BidiCall final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
      public EndableStream,
      public std::enable_shared_from_this<BidiCall> {
 public:
  BidiCall(CallRuntime& runtime, grpc::CallbackServerContext* context)
      : runtime_(runtime),
        context_(*context),
        cut_off_(runtime.timer, *context) {}

  void Start(const BidiFunction& function) {
    self_ = shared_from_this();
    // Added before the stream has a place, so that a drain ends every stream
    // that has one, even if its peer sends nothing.
    runtime_.open_streams.Add(self_, "");
    absl::StatusOr<Budget::Place> place = runtime_.streams.Take();
    if (!place.ok()) {
      FinishWith(place.status());
      return;
    }
    place_ = *std::move(place);
    conversation_ =
        function(&context_, [this](absl::string_view vm) { return Take(vm); });
    end_of_silence_ = runtime_.timer.At(
        mmu::MonotonicTime::Now() + runtime_.first_message_patience,
        [call = weak_from_this()] {
          if (const auto self = call.lock()) self->EndSilent();
        });
    Listen();
  }

  void OnReadDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      if (state_ == State::kFinished) return;
      state_ = State::kMaking;
      was_heard_ = true;
    }
    runtime_.timer.Cancel(end_of_silence_);
    if (!ok) {
      // The peer has sent everything, or is gone.
      FinishWith(context_.IsCancelled() ? Gone() : absl::OkStatus());
      return;
    }
    Post([this] { TakeMessage(); });
  }

  void OnWriteDone(bool ok) override {
    absl::Status end;
    {
      absl::MutexLock lock(&mu_);
      state_ = State::kMaking;
      end = end_;
    }
    if (!ok) {
      // The call is over: the peer gets no status, but the metrics do.
      FinishWith(end.ok() ? Gone() : end);
      return;
    }
    Post([this] { MakeNext(); });
  }

  void OnDone() override {
    runtime_.open_streams.Remove(this);
    runtime_.timer.Cancel(end_of_silence_);
    cut_off_.Ended();
    const std::shared_ptr<BidiCall> last = std::move(self_);
  }

  void End(const absl::Status& status, absl::Duration patience) override {
    // Destroyed without the lock.
    std::unique_ptr<ByteConversation> conversation;
    Budget::Place place;
    bool is_listening = false;
    {
      absl::MutexLock lock(&mu_);
      if (end_.ok()) end_ = status;
      if (state_ != State::kReading && state_ != State::kWriting) return;
      conversation = std::move(conversation_);
      place = std::move(place_of_vm_);
      is_listening = state_ == State::kReading;
      if (is_listening) {
        state_ = State::kFinished;
      } else {
        // The peer may still read: then it gets the whole status. If it does
        // not read, OnWriteDone(false) follows.
        cut_off_.Arm(patience, end_);
      }
    }
    if (!is_listening) return;
    conversation = nullptr;
    place.Release();
    place_.Release();
    // Finish makes gRPC's pending read fail; OnReadDone then does nothing.
    Finish(ToGrpcStatus(status));
  }

 private:
  enum class State : uint8_t { kReading, kMaking, kWriting, kFinished };

  static absl::Status Gone() {
    return ApiError(absl::StatusCode::kCancelled, mmu::Reason::kCallCancelled,
                    "the call was cancelled");
  }

  // Ends the call if its peer has sent nothing so far.
  void EndSilent() {
    {
      absl::MutexLock lock(&mu_);
      if (was_heard_) return;
    }
    End(ApiError(
            absl::StatusCode::kDeadlineExceeded, mmu::Reason::kCallCancelled,
            absl::StrCat("no message came for ",
                         absl::FormatDuration(runtime_.first_message_patience),
                         "; open another stream and send its first message at "
                         "once")),
        runtime_.patience);
  }

  absl::Status Take(absl::string_view vm) {
    absl::StatusOr<Budget::Place> place = runtime_.streams_per_vm.Take(vm);
    if (!place.ok()) return place.status();
    place_of_vm_ = *std::move(place);
    runtime_.open_streams.Add(shared_from_this(), vm);
    return absl::OkStatus();
  }

  template <typename Work>
  void Post(Work work) {
    const absl::Status posted = runtime_.stream_workers.Post(std::move(work));
    if (!posted.ok()) FinishWith(posted);
  }

  void TakeMessage() {
    absl::Status status = end();
    if (status.ok()) status = conversation_->Take(message_);
    if (!status.ok()) {
      FinishWith(status);
      return;
    }
    MakeNext();
  }

  void MakeNext() {
    absl::Status status = end();
    if (status.ok()) {
      answer_.Clear();
      const absl::StatusOr<bool> made = conversation_->Next(&answer_);
      if (made.ok() && !*made) {
        Listen();
        return;
      }
      if (made.ok()) {
        {
          absl::MutexLock lock(&mu_);
          if (end_.ok()) state_ = State::kWriting;
          status = end_;
        }
        if (status.ok()) {
          StartWrite(&answer_);
          return;
        }
      } else {
        status = made.status();
      }
    }
    FinishWith(status);
  }

  void Listen() {
    absl::Status status;
    {
      // Held while the read is started, so that End cannot finish the call in
      // between. gRPC calls OnReadDone from a thread of its own.
      absl::MutexLock lock(&mu_);
      status = end_;
      if (status.ok()) {
        state_ = State::kReading;
        message_.Clear();
        StartRead(&message_);
      }
    }
    if (!status.ok()) FinishWith(status);
  }

  void FinishWith(const absl::Status& status) {
    // The conversation releases the VM before the status is sent: a client that
    // has the status may delete the VM at once.
    conversation_ = nullptr;
    place_of_vm_.Release();
    place_.Release();
    {
      absl::MutexLock lock(&mu_);
      state_ = State::kFinished;
    }
    Finish(ToGrpcStatus(status));  // and this may be gone
  }

  absl::Status end() {
    absl::MutexLock lock(&mu_);
    return end_;
  }

  CallRuntime& runtime_;
  CallContext context_;
  std::shared_ptr<BidiCall> self_;
  // Belongs to the state `making`, one thread at a time. In `reading` and
  // `writing`, End may use conversation_ and place_of_vm_, under mu_.
  Budget::Place place_;
  Budget::Place place_of_vm_;
  std::unique_ptr<ByteConversation> conversation_;
  grpc::ByteBuffer message_;  // belongs to gRPC while reading
  grpc::ByteBuffer answer_;   // belongs to gRPC while writing
  CutOff cut_off_;
  Timer::Ticket end_of_silence_;  // written before the first read

  absl::Mutex mu_;
  absl::Status end_ ABSL_GUARDED_BY(mu_);  // how to end; OK: go on
  State state_ ABSL_GUARDED_BY(mu_) = State::kMaking;
  bool was_heard_ ABSL_GUARDED_BY(mu_) = false;  // a read has ended
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartBidiCall(
    CallRuntime& runtime, const BidiFunction& function,
    grpc::CallbackServerContext* context) {
  const auto call = std::make_shared<BidiCall>(runtime, context);
  call->Start(function);
  return call.get();
}

}  // namespace mmud
