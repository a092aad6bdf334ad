// Many connections and few file descriptors: the daemon reports when it cannot
// answer, and answers again as soon as it can.

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/child_process.h"
#include "tests/integration/daemon.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

// Connections that send no requests.
class SilentConnections {
 public:
  ~SilentConnections() { CloseAll(); }

  void ToUnix(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    Connect(AF_UNIX, reinterpret_cast<const sockaddr*>(&address),
            sizeof(address));
  }
  void ToPort(int port, const std::string& first_bytes) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Connect(AF_INET, reinterpret_cast<const sockaddr*>(&address),
            sizeof(address));
    send(fds_.back(), first_bytes.data(), first_bytes.size(), MSG_NOSIGNAL);
  }
  // True if no connection was answered or closed by the daemon.
  bool AllAreOpen() const {
    return std::all_of(fds_.begin(), fds_.end(), [](int fd) {
      char byte = 0;
      return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    });
  }
  void CloseOne() {
    close(fds_.back());
    fds_.pop_back();
  }
  void CloseAll() {
    while (!fds_.empty()) CloseOne();
  }

 private:
  void Connect(int family, const sockaddr* address, socklen_t size) {
    fds_.push_back(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fds_.back(), address, size), 0) << std::strerror(errno);
  }

  std::vector<int> fds_;
};

TEST(ConnectionsTest, OutOfDescriptorsOnceIsNotDeafForEver) {
  const ScratchDirectory directory;
  const std::string socket = directory.File("mmud.sock");
  const std::string ports = directory.File("ports");
  ChildProcess daemon({"/bin/sh", "-c", "ulimit -n 64; exec \"$@\"", "sh",
                       MmudPath(), "--listen=unix:" + socket,
                       "--metrics-address=127.0.0.1:0", "--port-file=" + ports},
                      directory.File("mmud"));
  ASSERT_TRUE(Eventually([&] { return !ReadFile(ports).empty(); }))
      << daemon.Err();
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(
      absl::StripPrefix(absl::StripAsciiWhitespace(ReadFile(ports)),
                        "metrics="),
      &port));
  EXPECT_EQ(HttpGet(port, "/readyz").code, 200);

  SilentConnections silent;
  for (int i = 0; i < 200; ++i) silent.ToUnix(socket);
  EXPECT_TRUE(Eventually([&] { return HttpGet(port, "/readyz").code == 503; }));
  EXPECT_EQ(HttpGet(port, "/healthz").code, 200);
  EXPECT_TRUE(
      absl::StrContains(HttpGet(port, "/readyz").body, "does not answer"));
  EXPECT_TRUE(
      absl::StrContains(HttpGet(port, "/metrics").body, "\nmmud_ready 0\n"));

  silent.CloseAll();
  EXPECT_TRUE(Eventually([&] { return HttpGet(port, "/readyz").code == 200; }));
  const TestClient client("unix:" + socket);
  EXPECT_TRUE(Eventually([&] { return client.Health() == "SERVING"; }));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(absl::Seconds(30)), 0) << daemon.Err();
}

TEST(ConnectionsTest, WhoComesBeyondTheLimitWaitsForAPlace) {
  Daemon daemon({"--max-connections=3"});
  const std::string socket = daemon.directory().File("mmud.sock");
  const auto use = [&] { return UseOf(daemon.client(), "max_connections"); };
  EXPECT_EQ(use().limit_count(), 3);
  // These connections compete with the client's own connection and with that of
  // the daemon's probe, which comes and goes.
  SilentConnections silent;
  silent.ToUnix(socket);
  silent.ToUnix(socket);
  silent.ToUnix(socket);
  EXPECT_TRUE(Eventually([&] { return use().used_count() == 3; }));
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 200);
  EXPECT_TRUE(Eventually(
      [&] { return HttpGet(daemon.metrics_port(), "/readyz").code == 503; }));
  // Calls over the existing connection are served all the time.
  EXPECT_EQ(use().used_count(), 3);
  silent.CloseAll();
  const TestClient late(daemon.address());
  EXPECT_TRUE(Eventually([&] { return late.Health() == "SERVING"; }));
  EXPECT_TRUE(Eventually(
      [&] { return HttpGet(daemon.metrics_port(), "/readyz").code == 200; }));
}

TEST(ConnectionsTest, HalfOpenHttpRequestsDoNotHideTheHealth) {
  Daemon daemon;
  SilentConnections half_open;
  for (int i = 0; i < 100; ++i) {
    half_open.ToPort(daemon.metrics_port(), "GET /metrics HTTP/1.1\r\nHo");
  }
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 200);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/readyz").code, 200);
  EXPECT_NE(daemon.MetricsText(), "");
}

TEST(ConnectionsTest, HealthIsAnsweredBeforeThePatienceWithOthersEnds) {
  Daemon daemon;
  SilentConnections half_open;
  for (int i = 0; i < 8; ++i) {
    half_open.ToPort(daemon.metrics_port(), "GET /metrics HTTP/1.1\r\nHo");
  }
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 200);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/readyz").code, 200);
  EXPECT_TRUE(half_open.AllAreOpen());
}

}  // namespace
}  // namespace mmud::integration
