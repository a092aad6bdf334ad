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

// What the handler writes; set before it is installed.
const std::string* interrupt_note = nullptr;
// What came first. A handler may use it, since it has no lock.
std::atomic<int> first_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free);

// The first signal: says how things are and goes on. SA_RESETHAND makes the
// second one end the process as if there were no handler. It may interrupt
// anything, so it only writes; not to the stream of `err`, whose state the
// interrupted code may hold.
void OnInterrupt(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number)) {
    // Another one of the signals, which was reset as well: it ends the process
    // when this handler returns.
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
