#include "server/http_response.h"

#include <microhttpd.h>

#include <string>
#include <utility>

namespace mmud {

HttpResponse MakeHttpResponse(std::string body, const std::string& content_type,
                              const std::string& content_encoding) {
  MHD_Response* const made = MHD_create_response_from_buffer(
      body.size(), body.data(), MHD_RESPMEM_MUST_COPY);
  if (made == nullptr) return nullptr;
  HttpResponse response(made, MHD_destroy_response);
  const auto header = [&response](const char* name, const std::string& value) {
    MHD_add_response_header(response.get(), name, value.c_str());
  };
  header(MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
  if (!content_encoding.empty()) {
    header(MHD_HTTP_HEADER_CONTENT_ENCODING, content_encoding);
  }
  header(MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
  header(MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  header(MHD_HTTP_HEADER_CONNECTION, "close");
  return response;
}

HttpResponse TextResponse(std::string text) {
  return MakeHttpResponse(std::move(text), "text/plain; charset=utf-8", "");
}

}  // namespace mmud
