#include "server/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "server/metrics/metric_writer.h"
#include "server/rpc/open_connections.h"

namespace mmud {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class OneCounter final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricWriter writer;
    writer.Counter("things_total", "Things.");
    writer.Add(3, {{"kind", "a\"b"}});
    return writer.Take();
  }
};

// Larger than the kernel's buffers.
class LargeCounter final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricWriter writer;
    writer.Counter("things_total", std::string(8 << 20, 'h'));
    writer.Add(3, {});
    return writer.Take();
  }
};

// Signals when it is collected, and returns when it may.
class SlowCounter final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    if (!asked.HasBeenNotified()) asked.Notify();
    may_answer.WaitForNotification();
    ++made;
    return counter.Collect();
  }

  OneCounter counter;
  mutable absl::Notification asked;  // only one thread asks
  absl::Notification may_answer;
  mutable std::atomic<int> made{0};
};

void ConnectTo(const HttpServer& server, int fd) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server.port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
}

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() { Start(counter_); }

  // Replaces the server.
  void Start(const prometheus::Collectable& metrics,
             const HttpTimes& times = {}) {
    server_ = HttpServer::Start(
        "127.0.0.1:0", metrics, [this] { return why_; }, times);
    ASSERT_TRUE(server_.ok()) << server_.status();
  }
  int Connect() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ConnectTo(**server_, fd);
    return fd;
  }
  static void Send(int fd, const std::string& bytes) {
    EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Receives everything until the server closes the connection.
  static std::string Receive(int fd) {
    std::string answer;
    char buffer[4096];
    ssize_t size = 0;
    while ((size = recv(fd, buffer, sizeof(buffer), 0)) > 0) {
      answer.append(buffer, static_cast<size_t>(size));
    }
    close(fd);
    return answer;
  }
  // Sends one request and returns the whole answer.
  std::string Request(const std::string& method, const std::string& path,
                      const std::string& headers = "") {
    const int fd = Connect();
    Send(fd, absl::StrCat(method, " ", path, " HTTP/1.0\r\n", headers, "\r\n"));
    return Receive(fd);
  }

  OneCounter counter_;
  SlowCounter slow_;
  LargeCounter large_;
  std::string why_;  // constant while a request is in progress
  absl::StatusOr<std::unique_ptr<HttpServer>> server_ = nullptr;
};

TEST_F(HttpServerTest, ServesMetricsAsPrometheusText) {
  const std::string answer = Request("GET", "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(answer, HasSubstr("version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("# TYPE mmud_things_total counter\n"));
  EXPECT_THAT(answer, HasSubstr("mmud_things_total{kind=\"a\\\"b\"} 3\n"));
}

TEST_F(HttpServerTest, MetricsAreCompressedForWhoTakesThat) {
  const std::string packed =
      Request("GET", "/metrics", "Accept-Encoding: gzip\r\n");
  EXPECT_THAT(packed, HasSubstr("\r\nContent-Encoding: gzip\r\n"));
  EXPECT_THAT(packed, HasSubstr("\r\nVary: Accept-Encoding\r\n"));
  EXPECT_THAT(packed, HasSubstr("\r\n\r\n\x1f\x8b"));  // gzip's first bytes
  const std::string plain =
      Request("GET", "/metrics", "Accept-Encoding: identity\r\n");
  EXPECT_THAT(plain, ::testing::Not(HasSubstr("Content-Encoding")));
  EXPECT_THAT(plain, HasSubstr("mmud_things_total"));
  EXPECT_THAT(Request("GET", "/healthz", "Accept-Encoding: gzip\r\n"),
              HasSubstr("\r\n\r\nok\n"));
}

TEST_F(HttpServerTest, ReadinessEndsWithTheDrainAndHealthDoesNot) {
  EXPECT_THAT(Request("GET", "/readyz"), StartsWith("HTTP/1.1 200"));
  why_ = "draining";
  const std::string answer = Request("GET", "/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(answer, HasSubstr("draining\n"));
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, OtherPathsDoNotExist) {
  EXPECT_THAT(Request("GET", "/"), HasSubstr(" 404 "));
  EXPECT_THAT(Request("POST", "/metrics"), HasSubstr(" 405 "));
  EXPECT_EQ(Request("", "/metrics"), "");
  EXPECT_THAT(Request("GET", "/healthz?a=b"), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  const std::string answer = Request("HEAD", "/healthz");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 3\r\n"));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, WhoSendsHalfARequestKeepsNobodyFromAnAnswer) {
  std::vector<int> stuck;
  for (size_t i = 0; i < 3 * HttpServer::kMaxConnections; ++i) {
    stuck.push_back(Connect());
    // A connection that was closed to make room may report it here.
    send(stuck.back(), "GET /metr", 9, MSG_NOSIGNAL);
  }
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Request("GET", "/metrics"), HasSubstr("mmud_things_total"));
  // The newest connection is still served: the oldest was closed.
  Send(stuck.back(), "ics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(Receive(stuck.back()), StartsWith("HTTP/1.1 200"));
  stuck.pop_back();
  for (const int fd : stuck) close(fd);
}

TEST_F(HttpServerTest, TheOldestOfWhoHasMostMakesRoom) {
  const int alone = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in other = {};
  other.sin_family = AF_INET;
  other.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
  ASSERT_EQ(bind(alone, reinterpret_cast<sockaddr*>(&other), sizeof(other)), 0);
  ConnectTo(**server_, alone);
  Send(alone, "GET /heal");
  std::vector<int> many;
  for (size_t i = 0; i < HttpServer::kMaxConnections; ++i) {
    many.push_back(Connect());
  }
  // A closed client sees the end of its connection; the others stay connected.
  EXPECT_EQ(Receive(many[0]), "");
  Send(alone, "thz HTTP/1.0\r\n\r\n");
  EXPECT_THAT(Receive(alone), StartsWith("HTTP/1.1 200"));
  for (size_t i = 1; i < many.size(); ++i) {
    Send(many[i], "GET /healthz HTTP/1.0\r\n\r\n");
    EXPECT_THAT(Receive(many[i]), StartsWith("HTTP/1.1 200"));
  }
}

TEST_F(HttpServerTest, AByteNowAndThenKeepsNoPlace) {
  Start(counter_, {.read = std::chrono::milliseconds(50)});
  const int fd = Connect();
  Send(fd, "GET /healthz HTTP/1.1\r\nX: ");
  pollfd answer = {fd, POLLIN, 0};
  // Sends without end, unless the server closes the connection.
  while (poll(&answer, 1, 1) == 0) send(fd, "x", 1, MSG_NOSIGNAL);
  EXPECT_EQ(Receive(fd), "");
}

TEST_F(HttpServerTest, WhoDoesNotReadKeepsNoPlace) {
  Start(large_, {.write = std::chrono::milliseconds(50)});
  const int64_t before = CountDescriptors();
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int few = 4096;
  EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few)), 0);
  ConnectTo(**server_, fd);
  Send(fd, "GET /metrics HTTP/1.0\r\n\r\n");
  // The answer has begun.
  char first = 0;
  EXPECT_EQ(recv(fd, &first, 1, 0), 1);
  // The server has closed its end of the connection, which `fd` does not show.
  while (CountDescriptors() > before + 1) poll(nullptr, 0, 1);
  close(fd);
}

TEST_F(HttpServerTest, MetricsThatTakeTooLongAreGivenUp) {
  Start(slow_, {.make = std::chrono::milliseconds(50)});
  EXPECT_EQ(Request("GET", "/metrics"), "");
  slow_.may_answer.Notify();
}

TEST_F(HttpServerTest, MakingMetricsDelaysNoHealth) {
  Start(slow_);
  std::vector<int> waiting;
  for (size_t i = 0; i < 2 * HttpServer::kMaxConnections; ++i) {
    waiting.push_back(Connect());
    Send(waiting.back(), "GET /metrics HTTP/1.0\r\n\r\n");
    if (i == 0) slow_.asked.WaitForNotification();
  }
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Request("GET", "/readyz"), StartsWith("HTTP/1.1 200"));
  slow_.may_answer.Notify();
  EXPECT_THAT(Receive(waiting.back()), HasSubstr("mmud_things_total"));
  waiting.pop_back();
  for (const int fd : waiting) close(fd);
}

TEST_F(HttpServerTest, MetricsAreMadeOnceForAllWhoWait) {
  Start(slow_);
  // A client that connects while metrics are made needs newer ones. The server
  // notices only when it answers whether the client has left by then.
  for (int i = 0; i < 1000; ++i) {
    const int fd = Connect();
    Send(fd, "GET /metrics HTTP/1.0\r\n\r\n");
    if (i == 0) slow_.asked.WaitForNotification();
    close(fd);
  }
  const int plain = Connect();
  Send(plain, "GET /metrics HTTP/1.0\r\n\r\n");
  const int packed = Connect();
  Send(packed, "GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
  // All earlier connections have been accepted and read.
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
  slow_.may_answer.Notify();
  EXPECT_THAT(Receive(plain), HasSubstr("mmud_things_total"));
  EXPECT_THAT(Receive(packed), HasSubstr("Content-Encoding: gzip"));
  EXPECT_LE(slow_.made, 1 + 2 + 2) << "two forms; each at most once too often";
}

// Between two parts of a burst the accepted connections are served, and the
// server could end.
TEST_F(HttpServerTest, ABurstIsAcceptedInParts) {
  absl::Notification asked;
  absl::Notification may_answer;
  const auto server = HttpServer::Start("127.0.0.1:0", counter_, [&] {
    if (!asked.HasBeenNotified()) asked.Notify();
    may_answer.WaitForNotification();
    return std::string();
  });
  ASSERT_TRUE(server.ok()) << server.status();
  const auto request = [&server](const std::string& path) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ConnectTo(**server, fd);
    Send(fd, "GET " + path + " HTTP/1.0\r\n\r\n");
    return fd;
  };
  const int first = request("/readyz");
  asked.WaitForNotification();  // no connection is accepted now
  constexpr size_t kBurst = 4 * HttpServer::kMaxConnections;
  std::vector<int> burst;
  for (size_t i = 0; i < kBurst; ++i) burst.push_back(request("/healthz"));
  may_answer.Notify();
  size_t answered = 0;
  for (const int fd : burst) answered += !Receive(fd).empty();
  // In each part some connections may have to make room for the next part.
  EXPECT_GT(answered, kBurst / 2);
  Receive(first);
}

TEST_F(HttpServerTest, EndsWhileMetricsAreMade) {
  Start(slow_);
  const int fd = Connect();
  Send(fd, "GET /metrics HTTP/1.0\r\n\r\n");
  slow_.asked.WaitForNotification();
  std::thread client([this, fd] {
    EXPECT_EQ(Receive(fd), "");
    slow_.may_answer.Notify();
  });
  server_->reset();
  client.join();
}

TEST_F(HttpServerTest, WhoHasSaidAllIsAnswered) {
  Start(slow_);
  // libmicrohttpd treats the least recently used connection differently, so
  // this idle one takes that place.
  const int idle = Connect();
  const int metrics = Connect();
  Send(metrics, "GET /metrics HTTP/1.0\r\n\r\n");
  shutdown(metrics, SHUT_WR);
  slow_.asked.WaitForNotification();
  const int health = Connect();
  Send(health, "GET /healthz HTTP/1.0\r\n\r\n");
  shutdown(health, SHUT_WR);
  EXPECT_THAT(Receive(health), StartsWith("HTTP/1.1 200"));
  slow_.may_answer.Notify();
  EXPECT_THAT(Receive(metrics), HasSubstr("mmud_things_total"));
  close(idle);
}

TEST_F(HttpServerTest, WithoutDescriptorsTheOldestMakesRoom) {
  std::vector<int> stuck;
  for (int i = 0; i < 10; ++i) stuck.push_back(Connect());
  // All of them were accepted before this one.
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
  std::vector<int> late;
  for (int i = 0; i < 3; ++i) late.push_back(socket(AF_INET, SOCK_STREAM, 0));
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int first_free = dup(0);
  close(first_free);
  const rlimit none_free = {static_cast<rlim_t>(first_free), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none_free), 0);
  // Each connection has a place of its own; at most one is left over from the
  // last request.
  for (const int fd : late) ConnectTo(**server_, fd);
  while (!late.empty()) {
    Send(late.back(), "GET /healthz HTTP/1.0\r\n\r\n");
    EXPECT_THAT(Receive(late.back()), StartsWith("HTTP/1.1 200"));
    late.pop_back();
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  for (const int fd : stuck) close(fd);
}

TEST_F(HttpServerTest, AHeadWithoutEndIsRefused) {
  const std::string line(1000, 'x');
  const auto send_much = [&line](int fd) {
    for (int i = 0; i < 40; ++i) {
      send(fd, line.data(), line.size(), MSG_NOSIGNAL);
    }
  };
  const int address = Connect();
  send_much(address);
  EXPECT_THAT(Receive(address), HasSubstr(" 414 "));
  const int header = Connect();
  Send(header, "GET /healthz HTTP/1.0\r\nX: ");
  send_much(header);
  EXPECT_THAT(Receive(header), HasSubstr(" 431 "));
}

TEST_F(HttpServerTest, ASecondServerOnThePortIsRefused) {
  const auto second =
      HttpServer::Start(absl::StrCat("127.0.0.1:", (*server_)->port()),
                        counter_, [] { return std::string(); });
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mmud
