// The filter of ListOperations: a part of the filter language of AIP-160.
//
//   vm = "vms/alpha" AND method = SplitHugePages AND done = false
//   start_time >= "2026-11-21T08:00:00Z"

#ifndef SERVER_CONVERT_OPERATION_FILTER_H_
#define SERVER_CONVERT_OPERATION_FILTER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/longrunning/operations.pb.h"

namespace mmud {

// A value.
class OperationFilter {
 public:
  // Parses terms joined by AND, each `field operator value`. The fields vm,
  // vm_uid, method and done allow = and !=; start_time and end_time allow <,
  // <=, >, >=, = and !=. A value is a word, or text in double quotes. An empty
  // filter matches all operations. INVALID_FILTER that names the term and the
  // rule.
  static absl::StatusOr<OperationFilter> Parse(absl::string_view text);

  // Whether every term holds. An operation with metadata of an unknown type has
  // no vm, vm_uid, method and times, and a running one has no end_time; only !=
  // holds for a missing field.
  bool Matches(const google::longrunning::Operation& operation) const;

 private:
  struct Facts;
  using Term = std::function<bool(const Facts&)>;

  static absl::StatusOr<Term> ParseTerm(const std::string& field,
                                        const std::string& relation,
                                        const std::string& value);

  std::vector<Term> terms_;
};

}  // namespace mmud

#endif  // SERVER_CONVERT_OPERATION_FILTER_H_
