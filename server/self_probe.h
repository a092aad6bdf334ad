// Checks whether the daemon's own listeners still answer, with a real call over
// a new connection, as a client would make it.

#ifndef SERVER_SELF_PROBE_H_
#define SERVER_SELF_PROBE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/mutex.h"
#include "server/base/event.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace mmud {

// Works on a thread of its own from construction to destruction.
class SelfProbe {
 public:
  struct Settings {
    absl::Duration period = absl::Seconds(2);    // from round to round
    absl::Duration deadline = absl::Seconds(5);  // of one call
    // Number of calls in a row without an answer after which a listener counts
    // as deaf: on a busy machine a single answer may well be late.
    int failures = 3;
  };

  // `targets` are in the form of gRPC's clients. After each round `report` gets
  // the problem; "" if no listener is deaf.
  SelfProbe(std::vector<std::string> targets,
            std::function<void(const std::string&)> report,
            const Settings& settings);
  // Cancels a call that waits for its answer.
  ~SelfProbe();
  SelfProbe(const SelfProbe&) = delete;
  SelfProbe& operator=(const SelfProbe&) = delete;

 private:
  struct Target {
    // A connection that was not accepted yet is kept for the next call: new
    // ones would wait behind it and take the places that become free.
    std::shared_ptr<grpc::Channel> channel;
    int failures = 0;  // in a row
  };

  struct Call;

  void Run();
  // Calls all targets at once, so that a deaf one does not delay the results of
  // the others. Returns the problem of each target, in their order; "" if its
  // call was answered.
  std::vector<std::string> Probe();

  const std::vector<std::string> targets_;
  const std::function<void(const std::string&)> report_;
  const Settings settings_;
  std::map<std::string, Target> state_;  // used only by the thread
  Event stop_;

  mmu::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // The calls of a round; each is kept until all are answered.
  std::vector<std::unique_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last: it uses the other members
};

}  // namespace mmud

#endif  // SERVER_SELF_PROBE_H_
