// Sees whether the daemon's own listeners still answer: by a real call over a
// new connection, as a client makes it.

#ifndef SERVER_SELF_PROBE_H_
#define SERVER_SELF_PROBE_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "server/base/event.h"

namespace mmud {

// Works on a thread of its own from construction to destruction.
class SelfProbe {
 public:
  // `targets`: as gRPC's clients name them. `report` hears after each round
  // what is wrong; "" if all answer. Listeners count as answering until the
  // first round says otherwise.
  SelfProbe(std::vector<std::string> targets,
            std::function<void(const std::string&)> report);
  ~SelfProbe();
  SelfProbe(const SelfProbe&) = delete;
  SelfProbe& operator=(const SelfProbe&) = delete;

 private:
  void Run();

  const std::vector<std::string> targets_;
  const std::function<void(const std::string&)> report_;
  Event stop_;
  std::thread thread_;
};

}  // namespace mmud

#endif  // SERVER_SELF_PROBE_H_
