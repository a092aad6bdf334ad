// Checks from outside whether running work is still wanted.

#ifndef SERVER_RPC_WATCH_H_
#define SERVER_RPC_WATCH_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/mutex.h"
#include "server/rpc/timer.h"

namespace mmud {

// Calls `keep_going` every `period`, on the timer's thread, so that the work
// needs no second thread for it. After its first error calls `cancel`, and
// `keep_going` no more. Neither function may wait for anything. After the
// destructor has returned, neither runs or will run. Thread-safe.
class Watch {
 public:
  // `timer` outlives this.
  Watch(Timer& timer, absl::Duration period,
        std::function<absl::Status()> keep_going, std::function<void()> cancel);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // The error of `keep_going`; OK if it returned none.
  absl::Status status() const;

 private:
  // Outlives the watch if the timer is about to check.
  struct State {
    State(Timer& t, absl::Duration p, std::function<absl::Status()> k,
          std::function<void()> c)
        : timer(t), period(p), keep_going(std::move(k)), cancel(std::move(c)) {}

    Timer& timer;
    const absl::Duration period;
    const std::function<absl::Status()> keep_going;
    const std::function<void()> cancel;
    mmu::Mutex mu;  // held while the functions run; outer to the timer's
    bool over ABSL_GUARDED_BY(mu) = false;
    absl::Status status ABSL_GUARDED_BY(mu);
  };

  static void Look(const std::shared_ptr<State>& state);
  static void LookLater(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace mmud

#endif  // SERVER_RPC_WATCH_H_
