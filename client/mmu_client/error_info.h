// Errors of the API as absl::Status, with all details from the daemon.

#ifndef CLIENT_MMU_CLIENT_ERROR_INFO_H_
#define CLIENT_MMU_CLIENT_ERROR_INFO_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmud/v1/error_reasons.pb.h"

namespace google::rpc {
class Status;
}
namespace grpc {
class Status;
}

namespace mmud::client {

// A field of the request and the rule that it broke. A value.
struct FieldViolation {
  std::string field;  // a path, for example "vm.memslots[2].size_bytes"
  std::string rule;
};

// Details of an error from the daemon. A value; empty fields if the daemon sent
// none.
struct ErrorInfo {
  std::string message;  // the sentence for people, without the rest
  std::string reason;   // as it was sent: the name of a v1::ErrorReason
  std::string domain;   // "mmud"
  std::map<std::string, std::string> metadata;  // for example errno
  std::vector<FieldViolation> field_violations;
  std::vector<std::string> preconditions;  // conditions that did not hold
  std::string resource_name;               // for example "vms/alpha"
  std::optional<absl::Duration> retry_delay;
};

// The status of a call. Its message ends with reason, fields and metadata in
// brackets; ErrorInfoOf returns them one by one.
absl::Status FromGrpcStatus(const grpc::Status& status);

// The same for the error of a long-running operation.
absl::Status FromRpcStatus(const google::rpc::Status& status);

// Details of `status` from the daemon. For a status of other origin only
// `message` is set.
ErrorInfo ErrorInfoOf(const absl::Status& status);

// Only the reason. ERROR_REASON_UNSPECIFIED if there is none, or one that this
// client does not know yet.
v1::ErrorReason ReasonOf(const absl::Status& status);
v1::ErrorReason ReasonOf(const ErrorInfo& info);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_ERROR_INFO_H_
