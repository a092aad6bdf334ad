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
#include "server/drain_state.h"
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
      : server_(HttpServer::Start("127.0.0.1:0", counter_, drain_)) {
    EXPECT_TRUE(server_.ok()) << server_.status();
  }

  // The whole answer to one request.
  std::string Request(const std::string& method, const std::string& path) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>((*server_)->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(
        connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const std::string request =
        absl::StrCat(method, " ", path, " HTTP/1.0\r\n\r\n");
    EXPECT_EQ(send(fd, request.data(), request.size(), 0),
              static_cast<ssize_t>(request.size()));
    std::string answer;
    char buffer[4096];
    ssize_t size = 0;
    while ((size = recv(fd, buffer, sizeof(buffer), 0)) > 0) {
      answer.append(buffer, static_cast<size_t>(size));
    }
    close(fd);
    return answer;
  }

  OneCounter counter_;
  DrainState drain_;
  absl::StatusOr<std::unique_ptr<HttpServer>> server_;
};

TEST_F(HttpServerTest, ServesMetricsAsPrometheusText) {
  const std::string answer = Request("GET", "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(answer, HasSubstr("version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("# TYPE mmud_things_total counter\n"));
  EXPECT_THAT(answer, HasSubstr("mmud_things_total{kind=\"a\\\"b\"} 3\n"));
}

TEST_F(HttpServerTest, ReadinessEndsWithTheDrainAndHealthDoesNot) {
  EXPECT_THAT(Request("GET", "/readyz"), StartsWith("HTTP/1.1 200"));
  drain_.Begin();
  EXPECT_THAT(Request("GET", "/readyz"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(Request("GET", "/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, OtherPathsDoNotExist) {
  EXPECT_THAT(Request("GET", "/"), HasSubstr(" 404 "));
}

TEST_F(HttpServerTest, ASecondServerOnThePortIsRefused) {
  const auto second = HttpServer::Start(
      absl::StrCat("127.0.0.1:", (*server_)->port()), counter_, drain_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mmud
