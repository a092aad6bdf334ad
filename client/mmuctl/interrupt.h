// The reaction of a command to a signal.

#ifndef CLIENT_MMUCTL_INTERRUPT_H_
#define CLIENT_MMUCTL_INTERRUPT_H_

#include <signal.h>

#include <initializer_list>
#include <map>
#include <string>

namespace mmud::client {

// While this object exists, the first of `signals` writes `note` to standard
// error, and the next one ends this process. Only one object can exist at a
// time. Thread-compatible, except arrived().
class InterruptNote {
 public:
  explicit InterruptNote(std::string note,
                         std::initializer_list<int> signals = {SIGINT});
  ~InterruptNote();
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;

  // The first signal that arrived; 0 if none did. Thread-safe.
  int arrived() const;

 private:
  const std::string note_;
  std::map<int, struct sigaction> before_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_INTERRUPT_H_
