#include "server/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "absl/status/statusor.h"
#include "mmu_core/base/thread.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

// Whether the parent process made this process ignore the signal, as nohup does
// with SIGHUP, and a shell with SIGINT for background jobs.
bool IsIgnored(int number) {
  struct sigaction action = {};
  return sigaction(number, nullptr, &action) == 0 &&
         (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == SIG_IGN;
}

sigset_t WaitedFor() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  for (int number : {SIGINT, SIGHUP}) {
    if (!IsIgnored(number)) sigaddset(&signals, number);
  }
  return signals;
}

}  // namespace

void BlockSignals() {
  const sigset_t signals = WaitedFor();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

SignalRequest WaitForSignal() {
  const sigset_t signals = WaitedFor();
  int number = 0;
  sigwait(&signals, &number);
  switch (number) {
    case SIGHUP:
      return {.reload = true, .name = "SIGHUP"};
    case SIGTERM:
      return {.reload = false, .name = "SIGTERM"};
    default:
      return {.reload = false, .name = "SIGINT"};
  }
}

void ExitOnNextSignal() {
  // A service manager may ask for a reload while it waits for the end.
  signal(SIGHUP, SIG_IGN);
  absl::StatusOr<std::thread> thread = mmu::MakeThread([] {
    WaitForSignal();
    Log(LogLevel::kWarning, "second signal: exiting at once");
    _exit(1);
  });
  if (thread.ok()) {
    thread->detach();
    return;
  }
  // Without that thread the kernel ends the process, without a log line.
  const sigset_t signals = WaitedFor();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace mmud
