// The results as one HTML page.

#ifndef CLIENT_COMPARISON_HTML_VIEW_H_
#define CLIENT_COMPARISON_HTML_VIEW_H_

#include <string>

#include "client/comparison/result.h"

namespace mmud::client {

// A whole page that needs no other file and no network: bar charts of the main
// numbers, then tables of all numbers, and what each number means. It has
// colours for light and for dark screens. It is well-formed XML too.
std::string ViewAsHtml(const Comparison& comparison);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_HTML_VIEW_H_
