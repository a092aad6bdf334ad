// Text in HTML and SVG.

#ifndef CLIENT_TEXT_HTML_H_
#define CLIENT_TEXT_HTML_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmud::client {

// `text` with the characters that HTML and SVG reserve replaced, for use
// between tags and in attributes with double quotes. A control character, which
// neither may have, becomes U+FFFD.
std::string EscapeHtml(absl::string_view text);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_HTML_H_
