#include "client/text/html.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace mmud::client {

std::string EscapeHtml(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else if (c != '\n' &&
               absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      escaped += "\xef\xbf\xbd";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace mmud::client
