// Text of others on a terminal.

#ifndef CLIENT_TEXT_PRINTABLE_H_
#define CLIENT_TEXT_PRINTABLE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmud::client {

// `text` with a question mark for each byte that is no printable ASCII: it
// might change the state of a terminal.
std::string Printable(absl::string_view text);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_PRINTABLE_H_
