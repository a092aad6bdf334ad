// Whether the daemon takes new work, and the reason if not.

#ifndef SERVER_CONTROL_READINESS_H_
#define SERVER_CONTROL_READINESS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/control/drain_state.h"

namespace mmud {

// Thread-safe.
class Readiness {
 public:
  // `drain` outlives this.
  explicit Readiness(const DrainState& drain) : drain_(drain) {}

  // Sets the problem with the listeners; "" if they answer.
  void SetListeners(absl::string_view wrong) {
    absl::MutexLock lock(&mu_);
    listeners_ = std::string(wrong);
  }

  // The reason why the daemon is not ready; "" if it is ready.
  std::string Why() const {
    if (drain_.is_draining()) return "draining";
    absl::MutexLock lock(&mu_);
    return listeners_;
  }

 private:
  const DrainState& drain_;
  mutable absl::Mutex mu_;
  std::string listeners_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_READINESS_H_
