#include "server/http_request.h"

#include <string>

#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(HttpRequest, TakesMethodPathAndWhatMayBeCompressed) {
  HttpRequest request;
  ASSERT_EQ(ParseHttpRequest("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n"
                             "accept-encoding:  gzip \r\n\r\nmore",
                             &request),
            HttpParse::kDone);
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.path, "/metrics");
  EXPECT_EQ(request.accept_encoding, "gzip");
}

TEST(HttpRequest, WaitsForTheEndOfTheHead) {
  const std::string whole = "HEAD /healthz HTTP/1.0\r\nHost: a\r\n\r\n";
  HttpRequest request;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(ParseHttpRequest(whole.substr(0, size), &request),
              HttpParse::kIncomplete);
  }
  EXPECT_EQ(ParseHttpRequest(whole, &request), HttpParse::kDone);
}

TEST(HttpRequest, RefusesWhatIsNone) {
  for (const char* head :
       {"", "GET", "GET /", "GET  HTTP/1.1", "GET metrics HTTP/1.1",
        "GET / HTTP/2", "GET / x HTTP/1.1", " / HTTP/1.1",
        "GET / HTTP/1.1\r\nno colon"}) {
    HttpRequest request;
    EXPECT_EQ(ParseHttpRequest(std::string(head) + "\r\n\r\n", &request),
              HttpParse::kBad)
        << head;
  }
}

}  // namespace
}  // namespace mmud
