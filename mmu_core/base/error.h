// Errors that a caller of mmu_core caused.
//
// Each is an absl::Status that also says, for machines, which rule was broken
// (`reason`, UPPER_SNAKE as in the gRPC API), which input field broke it, and
// the errno with which KVM refuses the same thing (0 where KVM has no such
// call). The message is for people: field, value, rule, fix.

#ifndef MMU_CORE_BASE_ERROR_H_
#define MMU_CORE_BASE_ERROR_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace mmu {

// A value.
struct ErrorDetail {
  std::string reason;  // e.g. "REGION_OVERLAP"; empty if the status has none
  std::string field;   // e.g. "gpa_bytes"; empty if no single field is to blame
  int kvm_errno = 0;   // e.g. EEXIST
  // What the message says in words, by name: "owner", "open_page_count". Any
  // text; empty where the three above say it all.
  std::map<std::string, std::string> metadata = {};
};

// Makes a status that carries `detail`.
absl::Status MakeError(absl::StatusCode code, const ErrorDetail& detail,
                       std::string_view message);

// The detail of a status made by MakeError, else an empty one.
ErrorDetail DetailOf(const absl::Status& status);

// "EINVAL", "EEXIST", ...; "" for 0.
std::string_view ErrnoName(int kvm_errno);

}  // namespace mmu

#endif  // MMU_CORE_BASE_ERROR_H_
