#include "server/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "server/metrics/metric_writer.h"

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

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest()
      : server_(HttpServer::Start("127.0.0.1:0", counter_,
                                  [this] { return why_; })) {
    EXPECT_TRUE(server_.ok()) << server_.status();
  }

  int Connect() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>((*server_)->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(
        connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  static void Send(int fd, const std::string& bytes) {
    EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // All that comes until the server closes.
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
  // The whole answer to one request.
  std::string Request(const std::string& method, const std::string& path,
                      const std::string& headers = "") {
    const int fd = Connect();
    Send(fd, absl::StrCat(method, " ", path, " HTTP/1.0\r\n", headers, "\r\n"));
    return Receive(fd);
  }

  OneCounter counter_;
  std::string why_;  // not changed while a request is in hand
  absl::StatusOr<std::unique_ptr<HttpServer>> server_;
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
  EXPECT_THAT(Request("", "/metrics"), HasSubstr(" 400 "));
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
    // One that was closed for a later one may hear of it here.
    send(stuck.back(), "GET /metr", 9, MSG_NOSIGNAL);
  }
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Request("GET", "/metrics"), HasSubstr("mmud_things_total"));
  // The newest is still served: the oldest had to go.
  Send(stuck.back(), "ics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(Receive(stuck.back()), StartsWith("HTTP/1.1 200"));
  stuck.pop_back();
  for (const int fd : stuck) close(fd);
}

TEST_F(HttpServerTest, AHeadWithoutEndIsRefused) {
  const int fd = Connect();
  const std::string line(1000, 'x');
  for (int i = 0; i < 40; ++i) {
    send(fd, line.data(), line.size(), MSG_NOSIGNAL);
  }
  EXPECT_THAT(Receive(fd), HasSubstr(" 431 "));
}

TEST_F(HttpServerTest, ASecondServerOnThePortIsRefused) {
  const auto second =
      HttpServer::Start(absl::StrCat("127.0.0.1:", (*server_)->port()),
                        counter_, [] { return std::string(); });
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mmud
