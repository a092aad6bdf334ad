// What libmicrohttpd sends, with the headers that all our answers have.

#ifndef SERVER_HTTP_RESPONSE_H_
#define SERVER_HTTP_RESPONSE_H_

#include <memory>
#include <string>

struct MHD_Response;

namespace mmud {

// May be sent to any number of clients. Null without memory for it;
// libmicrohttpd then closes the connection.
using HttpResponse = std::shared_ptr<MHD_Response>;

// Copies `body`. `content_encoding` is empty for none. Any thread may call it.
HttpResponse MakeHttpResponse(std::string body, const std::string& content_type,
                              const std::string& content_encoding);

// The same of plain text.
HttpResponse TextResponse(std::string text);

}  // namespace mmud

#endif  // SERVER_HTTP_RESPONSE_H_
