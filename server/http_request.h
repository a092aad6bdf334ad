// The head of an HTTP request, as far as it matters here.

#ifndef SERVER_HTTP_REQUEST_H_
#define SERVER_HTTP_REQUEST_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace mmud {

// A value.
struct HttpRequest {
  std::string method;           // "GET"
  std::string path;             // "/metrics", without a query
  std::string accept_encoding;  // of the header of that name; may be empty
};

enum class HttpParse : uint8_t { kIncomplete, kBad, kDone };

// Reads a request of HTTP/1 whose head may not be there whole yet. A body is
// not looked at: none is expected.
HttpParse ParseHttpRequest(absl::string_view bytes, HttpRequest* request);

}  // namespace mmud

#endif  // SERVER_HTTP_REQUEST_H_
