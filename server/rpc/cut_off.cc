#include "server/rpc/cut_off.h"

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpc/grpc.h"
#include "grpcpp/server_context.h"
#include "mmu_core/base/clock.h"
#include "server/rpc/timer.h"

namespace mmud {

struct CutOff::State {
  explicit State(grpc::CallbackServerContext& c) : context(c) {}

  void End(const absl::Status& status) {
    grpc_call* call = nullptr;
    {
      absl::MutexLock lock(&mu);
      if (done) return;
      call = context.c_call();
      grpc_call_ref(call);
    }
    // Without the lock: the callbacks that follow may run on this thread.
    grpc_call_cancel_with_status(
        call, static_cast<grpc_status_code>(status.code()),
        std::string(status.message()).c_str(), nullptr);
    grpc_call_unref(call);
  }

  void Disarm(Timer& timer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (ticket.has_value()) timer.Cancel(*ticket);
    ticket = absl::nullopt;
  }

  absl::Mutex mu;  // before the timer's
  bool done ABSL_GUARDED_BY(mu) = false;
  absl::optional<Timer::Ticket> ticket ABSL_GUARDED_BY(mu);
  grpc::CallbackServerContext& context;  // valid until done
};

CutOff::CutOff(Timer& timer, grpc::CallbackServerContext& context)
    : timer_(timer), state_(std::make_shared<State>(context)) {}

CutOff::~CutOff() { Ended(); }

void CutOff::Arm(absl::Duration patience, const absl::Status& status) {
  const mmu::MonotonicTime when = mmu::MonotonicTime::Now() + patience;
  absl::MutexLock lock(&state_->mu);
  if (state_->done) return;
  if (state_->ticket.has_value()) {
    if (state_->ticket->first <= when) return;
    timer_.Cancel(*state_->ticket);
  }
  state_->ticket =
      timer_.At(when, [state = state_, status] { state->End(status); });
}

void CutOff::Disarm() {
  absl::MutexLock lock(&state_->mu);
  state_->Disarm(timer_);
}

void CutOff::Ended() {
  absl::MutexLock lock(&state_->mu);
  state_->Disarm(timer_);
  state_->done = true;
}

absl::Status AnswerNotTaken(absl::Duration patience) {
  return absl::DeadlineExceededError(
      absl::StrCat("the call was done and its answer not read for ",
                   absl::FormatDuration(patience), "; read it"));
}

}  // namespace mmud
