// Answers for libmicrohttpd, with the headers that all answers of the daemon
// have.

#ifndef SERVER_HTTP_RESPONSE_H_
#define SERVER_HTTP_RESPONSE_H_

#include <memory>
#include <string>

struct MHD_Response;

namespace mmud {

// An answer may be sent to any number of clients. It is null if there was no
// memory for it; libmicrohttpd then closes the connection.
using HttpResponse = std::shared_ptr<MHD_Response>;

// Copies `body`. `content_encoding` is empty for no encoding. Thread-safe.
HttpResponse MakeHttpResponse(std::string body, const std::string& content_type,
                              const std::string& content_encoding);

// As MakeHttpResponse, for plain text.
HttpResponse TextResponse(std::string text);

}  // namespace mmud

#endif  // SERVER_HTTP_RESPONSE_H_
