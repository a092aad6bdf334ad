// Ends the program if a round does not end.

#ifndef TESTS_STRESS_ROUND_WATCH_H_
#define TESTS_STRESS_ROUND_WATCH_H_

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmu::stress {

// While it lives: if that is longer than `limit`, prints that round `name` does
// not end, and ends the program with exit code 1. A vCPU whose TLB has kept a
// pointer to an unlinked table may fault for ever. `limit` is many times the
// length of a round, so that a slow machine is no fault.
class RoundWatch {
 public:
  RoundWatch(absl::Duration limit, const std::string& name)
      : thread_([this, limit, name] {
          if (EndsWithin(limit)) return;
          std::printf("\nVIOLATION in %s\n  the round does not end\n",
                      name.c_str());
          std::fflush(stdout);
          std::_Exit(1);
        }) {}
  ~RoundWatch() {
    {
      MutexLock lock(mu_);
      has_ended_ = true;
    }
    ended_.NotifyAll();
    thread_.join();
  }
  RoundWatch(const RoundWatch&) = delete;
  RoundWatch& operator=(const RoundWatch&) = delete;

 private:
  bool EndsWithin(absl::Duration limit) {
    const MonotonicTime late = MonotonicTime::Now() + limit;
    MutexLock lock(mu_);
    while (!has_ended_) {
      const absl::Duration left = late - MonotonicTime::Now();
      if (left <= absl::ZeroDuration()) return false;
      ended_.WaitFor(mu_, absl::ToChronoMilliseconds(left));
    }
    return true;
  }

  Mutex mu_;
  CondVar ended_;
  bool has_ended_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // comes last: it uses the others
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_ROUND_WATCH_H_
