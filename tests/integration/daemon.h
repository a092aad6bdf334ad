// The real daemon, as a child process of the test.

#ifndef TESTS_INTEGRATION_DAEMON_H_
#define TESTS_INTEGRATION_DAEMON_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "tests/integration/child_process.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {

// Paths of the programs under test, in the runfiles of a test that has them in
// its `data`.
std::string MmudPath();
std::string MmuctlPath();
// Path of the library that makes a program's wall clock settable, for
// LD_PRELOAD.
std::string SteppedWallClockPath();
// Path of the recorded traces.
std::string TracesDirectory();

// One answer of an HTTP server.
struct HttpReply {
  int code = 0;  // 0: no answer
  std::string body;
};
HttpReply HttpGet(int port, const std::string& path);

// Starts mmud on a Unix socket of its own, with /metrics on a free port, and
// waits until it serves. The daemon is killed when this object is destroyed.
// Thread-compatible; client() may be used by several threads.
class Daemon {
 public:
  // `flags` are added to the flags of every test, or replace them.
  explicit Daemon(const std::vector<std::string>& flags = {});
  // Starts another daemon on the socket of `other`, which has ended.
  static std::unique_ptr<Daemon> OnSocketOf(const Daemon& other);
  ~Daemon();

  const TestClient& client() const { return *client_; }
  const std::string& address() const { return address_; }
  int metrics_port() const { return metrics_port_; }
  ChildProcess& process() { return *process_; }
  // TCP port for gRPC; 0 if the daemon has none.
  int grpc_port() const { return grpc_port_; }
  const ScratchDirectory& directory() const { return *directory_; }

  std::string MetricsText() const;
  // Resident memory of the daemon.
  int64_t ResidentBytes() const;

  // Ends the daemon with SIGTERM and returns its exit code.
  std::optional<int> Terminate(absl::Duration timeout = absl::Seconds(20));

 private:
  Daemon(std::shared_ptr<ScratchDirectory> directory,
         const std::vector<std::string>& flags);

  std::shared_ptr<ScratchDirectory> directory_;
  std::string address_;
  std::unique_ptr<ChildProcess> process_;
  std::unique_ptr<TestClient> client_;
  int metrics_port_ = 0;
  int grpc_port_ = 0;
};

// Calls `done` until it returns true. Returns false if it does not within a
// minute.
template <typename Done>
bool Eventually(const Done& done) {
  const mmu::MonotonicTime deadline =
      mmu::MonotonicTime::Now() + absl::Minutes(1);
  while (!done()) {
    if (mmu::MonotonicTime::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_DAEMON_H_
