// The results as two tables of text.

#ifndef CLIENT_COMPARISON_TABLE_VIEW_H_
#define CLIENT_COMPARISON_TABLE_VIEW_H_

#include <string>

#include "client/comparison/result.h"

namespace mmud::client {

// The guests, how to read the rows, a table of times and one of work, and
// warnings. No line is longer than 100 columns while times have three digits
// and counts have up to nine.
std::string ViewAsTables(const Comparison& comparison);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_TABLE_VIEW_H_
