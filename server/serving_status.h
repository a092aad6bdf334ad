// The status in the daemon's health service, and its changes.

#ifndef SERVER_SERVING_STATUS_H_
#define SERVER_SERVING_STATUS_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace mmud {

// SERVING while the listeners answer and no drain has begun; after a drain has
// begun, never again. Decision and change are made together, one change after
// the other. Otherwise a drain could be overtaken:
//   1. probe: the listeners answer again, no drain
//   2. drain: begins; NOT_SERVING
//   3. probe: SERVING
// Thread-safe.
class ServingStatus {
 public:
  // `set` tells clients. It is called under a lock, so it must not call this
  // object.
  explicit ServingStatus(std::function<void(bool serving)> set)
      : set_(std::move(set)) {}

  // Sets the problem with the listeners; "" if they answer, which is the
  // initial state. Returns true if clients were told of a change.
  bool SetListeners(const std::string& wrong) {
    absl::MutexLock lock(&mu_);
    if (draining_ || wrong.empty() == listeners_answer_) return false;
    listeners_answer_ = wrong.empty();
    set_(listeners_answer_);
    return true;
  }

  void BeginDrain() {
    absl::MutexLock lock(&mu_);
    draining_ = true;
    set_(false);
  }

 private:
  const std::function<void(bool)> set_;
  absl::Mutex mu_;
  bool listeners_answer_ ABSL_GUARDED_BY(mu_) = true;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace mmud

#endif  // SERVER_SERVING_STATUS_H_
