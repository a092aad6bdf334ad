// Errors of the daemon itself, in the form that mmu_core's errors have
// (mmu_core/base/error.h), plus the details that only an API has: resources and
// delays. status_mapping.h converts the errors of both to gRPC statuses.

#ifndef SERVER_BASE_ERRORS_H_
#define SERVER_BASE_ERRORS_H_

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/reason.h"

namespace mmud {

// Makes a caller's value fit for an error message: quoted, escaped and cut off
// after some characters.
std::string Quote(absl::string_view value);

// INVALID_ARGUMENT about one field of the request. `message` names the field,
// its value, the rule and, where it is not obvious, the fix.
absl::Status InvalidField(mmu::Reason reason, absl::string_view field,
                          absl::string_view message);

// The usual form of it: "FIELD is VALUE; it must be RULE".
absl::Status WrongValue(mmu::Reason reason, absl::string_view field,
                        const absl::AlphaNum& value, absl::string_view rule);

// Any other code.
absl::Status ApiError(absl::StatusCode code, mmu::Reason reason,
                      absl::string_view message);

// Attaches a resource to an error: `type` such as "mmud.v1.Vm", `name` such as
// "vms/alpha". It becomes google.rpc.ResourceInfo.
absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name);

// WithResource for a VM, by its name, "vms/alpha".
absl::Status AboutVm(absl::Status status, absl::string_view vm);

// Attaches a delay. It becomes google.rpc.RetryInfo.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// The same error with `prefix` in front of its field. An error without a field
// gets `prefix`, without its last dot, as its field.
absl::Status InField(absl::Status status, absl::string_view prefix);

// The same error with `field` in place of its field.
absl::Status OfField(absl::Status status, absl::string_view field);

// The field of a request that sets a parameter of mmu_core.
struct FieldName {
  absl::string_view parameter;
  absl::string_view field;
};
// The same error with the parameter of mmu_core replaced by its field in
// `names`; a field "" leaves the error without a field. For the parameter "a.b"
// `names` may have "b" alone, whose field then follows "a.". A parameter that
// `names` does not have has the same name in the request. The field is put in
// front of a message that does not name it.
absl::Status InFields(absl::Status status,
                      std::initializer_list<FieldName> names);

// The details that the functions here attached to an error; empty and negative
// without them.
struct ApiErrorDetail {
  std::string resource_type;
  std::string resource_name;
  std::string limit;
  absl::Duration retry_delay = -absl::InfiniteDuration();
};
ApiErrorDetail ApiDetailOf(const absl::Status& status);

// Errors that many calls return.
absl::Status VmNotFound(absl::string_view name);
absl::Status VmDeleted(absl::string_view name);
absl::Status MemslotNotFound(absl::string_view name);
absl::Status WorkloadNotFound(absl::string_view name);
absl::Status OperationNotFound(absl::string_view name);
absl::Status DrainingError();
// RESOURCE_EXHAUSTED LIMIT_EXCEEDED. `limit` is the name of the limit, which is
// its flag's name if it has a flag; it becomes ErrorInfo.metadata["limit"].
absl::Status LimitExceeded(absl::string_view limit, absl::string_view message);

}  // namespace mmud

#endif  // SERVER_BASE_ERRORS_H_
