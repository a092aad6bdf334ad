// What a command says and does when it is interrupted.

#ifndef CLIENT_MMUCTL_INTERRUPT_H_
#define CLIENT_MMUCTL_INTERRUPT_H_

#include <signal.h>

#include <initializer_list>
#include <map>
#include <string>

namespace mmud::client {

// While it exists, the first of `signals` writes `note` to standard error, and
// the next one ends this process. There is one at a time. Thread-compatible but
// for arrived().
class InterruptNote {
 public:
  explicit InterruptNote(std::string note,
                         std::initializer_list<int> signals = {SIGINT});
  ~InterruptNote();
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;

  // The first signal that came; 0 if none did. Thread-safe.
  int arrived() const;

 private:
  const std::string note_;
  std::map<int, struct sigaction> before_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_INTERRUPT_H_
