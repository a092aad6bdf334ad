// Labels of a resource: free text that its owner attaches to it.

#ifndef SERVER_BASE_LABELS_H_
#define SERVER_BASE_LABELS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmud {

using Labels = std::map<std::string, std::string>;

// Checks the rules: at most 64 labels. A key has 1 to 63 of a-z, 0-9, '-', '_',
// '.' and '/' and begins with a letter; a value has up to 63 of the same
// characters and capitals. INVALID_LABEL about `field`.
absl::Status CheckLabels(const Labels& labels, absl::string_view field);

}  // namespace mmud

#endif  // SERVER_BASE_LABELS_H_
