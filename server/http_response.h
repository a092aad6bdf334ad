// What libmicrohttpd sends, with the headers that all our answers have.

#ifndef SERVER_HTTP_RESPONSE_H_
#define SERVER_HTTP_RESPONSE_H_

#include <memory>
#include <string>

struct MHD_Response;

namespace mmud {

struct DropHttpResponse {
  void operator()(MHD_Response* response) const;
};
// Null without memory for it; libmicrohttpd then closes the connection.
using HttpResponse = std::unique_ptr<MHD_Response, DropHttpResponse>;

// Copies `body`. `content_encoding` is empty for none. Any thread may call it.
HttpResponse MakeHttpResponse(std::string body, const std::string& content_type,
                              const std::string& content_encoding);

// The same of plain text.
HttpResponse TextResponse(std::string text);

}  // namespace mmud

#endif  // SERVER_HTTP_RESPONSE_H_
