// Etags: a short hash of a resource's state.

#ifndef SERVER_BASE_ETAG_H_
#define SERVER_BASE_ETAG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmud {

// The etag of `state`. The same text gives the same etag in every process.
std::string MakeEtag(absl::string_view state);

// OK if `wanted` is empty or equal to `actual`. Otherwise ABORTED ETAG_MISMATCH
// about `resource` of type `type`.
absl::Status CheckEtag(absl::string_view wanted, absl::string_view actual,
                       absl::string_view type, absl::string_view resource);

}  // namespace mmud

#endif  // SERVER_BASE_ETAG_H_
