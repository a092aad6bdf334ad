#include "server/rpc/watch.h"

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

Watch::Watch(Timer& timer, absl::Duration period,
             std::function<absl::Status()> keep_going,
             std::function<void()> cancel)
    : state_(std::make_shared<State>(timer, period, std::move(keep_going),
                                     std::move(cancel))) {
  LookLater(state_);
}

Watch::~Watch() {
  // A check that comes later finds the watch over; a running check has the
  // lock.
  mmu::MutexLock lock(state_->mu);
  state_->over = true;
}

absl::Status Watch::status() const {
  mmu::MutexLock lock(state_->mu);
  return state_->status;
}

void Watch::LookLater(const std::shared_ptr<State>& state) {
  state->timer.At(mmu::MonotonicTime::Now() + state->period,
                  [state] { Look(state); });
}

void Watch::Look(const std::shared_ptr<State>& state) {
  {
    mmu::MutexLock lock(state->mu);
    if (state->over) return;
    state->status = state->keep_going();
    if (!state->status.ok()) {
      state->over = true;
      state->cancel();
      return;
    }
  }
  LookLater(state);
}

}  // namespace mmud
