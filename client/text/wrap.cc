#include "client/text/wrap.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace mmud::client {
namespace {

// Joins words to lines. The first line has `first` columns, the others `width`
// less `indent`. Each line but the last ends in `end`.
std::string Fill(const std::vector<std::string>& words, int first, int width,
                 int indent, absl::string_view end) {
  std::string text;
  int left = first;
  for (const std::string& word : words) {
    const int size = static_cast<int>(word.size());
    if (!text.empty()) {
      // The line must also have room for `end`, since another line may follow.
      if (size + 1 + static_cast<int>(end.size()) <= left) {
        text += ' ';
        --left;
      } else {
        absl::StrAppend(&text, end, "\n", std::string(indent, ' '));
        left = width - indent;
      }
    }
    text += word;
    left -= size;
  }
  return text;
}

// Splits a command line at blanks outside of quotes.
std::vector<std::string> ShellWords(absl::string_view command) {
  std::vector<std::string> words(1);
  char quote = '\0';
  for (const char c : command) {
    if (c == ' ' && quote == '\0') {
      if (!words.back().empty()) words.emplace_back();
      continue;
    }
    if (quote != '\0') {
      if (c == quote) quote = '\0';
    } else if (c == '\'' || c == '"') {
      quote = c;
    }
    words.back() += c;
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

}  // namespace

std::string Wrap(absl::string_view text, int width, int indent) {
  std::string wrapped;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!wrapped.empty()) {
      absl::StrAppend(&wrapped, "\n", std::string(indent, ' '));
    }
    wrapped += Fill(absl::StrSplit(line, ' ', absl::SkipEmpty()),
                    width - indent, width, indent, "");
  }
  return wrapped;
}

std::string WrapCommand(absl::string_view command, int width, int indent) {
  return std::string(indent, ' ') +
         Fill(ShellWords(command), width - indent, width, indent + 4, " \\");
}

}  // namespace mmud::client
