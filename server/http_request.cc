#include "server/http_request.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace mmud {

HttpParse ParseHttpRequest(absl::string_view bytes, HttpRequest* request) {
  const size_t end = bytes.find("\r\n\r\n");
  if (end == absl::string_view::npos) return HttpParse::kIncomplete;
  const std::vector<absl::string_view> lines =
      absl::StrSplit(bytes.substr(0, end), "\r\n");
  const std::vector<absl::string_view> words = absl::StrSplit(lines[0], ' ');
  if (words.size() != 3 || words[0].empty() ||
      !absl::StartsWith(words[1], "/") ||
      !absl::StartsWith(words[2], "HTTP/1.")) {
    return HttpParse::kBad;
  }
  request->method = std::string(words[0]);
  request->path = std::string(words[1].substr(0, words[1].find('?')));
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t colon = lines[i].find(':');
    if (colon == absl::string_view::npos) return HttpParse::kBad;
    if (absl::EqualsIgnoreCase(lines[i].substr(0, colon), "Accept-Encoding")) {
      request->accept_encoding =
          std::string(absl::StripAsciiWhitespace(lines[i].substr(colon + 1)));
    }
  }
  return HttpParse::kDone;
}

}  // namespace mmud
