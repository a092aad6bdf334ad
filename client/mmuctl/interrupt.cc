#include "client/mmuctl/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>

namespace mmud::client {
namespace {

// The text that the handler writes. It is set before the handler is installed.
const std::string* interrupt_note = nullptr;
// The first signal that arrived. The type is lock-free, so a handler may use
// it.
std::atomic<int> first_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

// Handles the first signal: writes the note and lets the command continue.
// SA_RESETHAND makes the second signal end the process as if there were no
// handler. The handler may interrupt any code, so it only calls write(). It
// does not use the stream of `err`, whose state the interrupted code may be
// changing.
void OnInterrupt(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) {
    // This is the second signal and a different one from the first. Its action
    // was reset too, so it ends the process when this handler returns.
    raise(number);
    return;
  }
  const int error = errno;
  size_t at = 0;
  while (at < interrupt_note->size()) {
    const ssize_t written = write(STDERR_FILENO, interrupt_note->data() + at,
                                  interrupt_note->size() - at);
    if (written <= 0) break;
    at += static_cast<size_t>(written);
  }
  errno = error;
}

}  // namespace

InterruptNote::InterruptNote(std::string note,
                             std::initializer_list<int> signals)
    : note_(std::move(note)) {
  interrupt_note = &note_;
  first_signal = 0;
  for (const int number : signals) {
    struct sigaction action = {};
    action.sa_handler = OnInterrupt;
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    sigaction(number, &action, &before_[number]);
  }
}

InterruptNote::~InterruptNote() {
  for (const auto& [number, before] : before_) {
    sigaction(number, &before, nullptr);
  }
}

int InterruptNote::arrived() const { return first_signal; }

}  // namespace mmud::client
