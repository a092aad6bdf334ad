// The results as one JSON object.

#ifndef CLIENT_COMPARISON_JSON_VIEW_H_
#define CLIENT_COMPARISON_JSON_VIEW_H_

#include "absl/status/statusor.h"
#include "client/comparison/result.h"
#include "client/text/message_json.h"

namespace mmud::client {

// The object that docs/mmuctl.md describes. Its field "schema" is
// "mmud.comparison/1". A number that does not exist or is not known is null.
// INTERNAL if a message of the daemon cannot be JSON.
absl::StatusOr<Json> ViewAsJson(const Comparison& comparison);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_JSON_VIEW_H_
