// Text in lines of a bounded width.

#ifndef CLIENT_TEXT_WRAP_H_
#define CLIENT_TEXT_WRAP_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmud::client {

// The width that all help fits into: that of the narrowest usual terminal.
inline constexpr int kHelpWidth = 80;

// The words of `text` in lines of at most `width` columns, the lines after the
// first indented by `indent` blanks; the first one has room for `width` less
// `indent`, since something else stands before it. Line breaks of `text` stay.
// A word that is longer than a line has one of its own.
std::string Wrap(absl::string_view text, int width, int indent);

// A command line in lines of at most `width` columns that a shell reads as one:
// those that go on end in a backslash. It is not broken within quotes. `indent`
// blanks stand before the first line, and four more before the others.
std::string WrapCommand(absl::string_view command, int width, int indent);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_WRAP_H_
