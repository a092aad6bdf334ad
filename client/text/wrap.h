// Text in lines of a bounded width.

#ifndef CLIENT_TEXT_WRAP_H_
#define CLIENT_TEXT_WRAP_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmud::client {

// The width of all help texts, which is that of the narrowest usual terminal.
inline constexpr int kHelpWidth = 80;

// Wraps `text` in lines of at most `width` columns. The lines after the first
// are indented by `indent` blanks. The first line has only `width` - `indent`
// columns, since other text precedes it. Line breaks of `text` are kept. A word
// that is longer than a line has a line of its own.
std::string Wrap(absl::string_view text, int width, int indent);

// Wraps a command line in lines of at most `width` columns. A line that is
// continued ends in a backslash, so a shell reads the lines as one. Quoted text
// is not broken. The first line is indented by `indent` blanks, the others by
// four more.
std::string WrapCommand(absl::string_view command, int width, int indent);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_WRAP_H_
