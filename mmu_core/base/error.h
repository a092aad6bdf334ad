// Errors that a caller of mmu_core caused.
//
// Each error is an absl::Status with a machine-readable detail: the broken rule
// (a Reason), the parameter that broke it, and the errno with which KVM refuses
// the same request (0 if KVM has no such call). The message is for people:
// field, value, rule, fix.

#ifndef MMU_CORE_BASE_ERROR_H_
#define MMU_CORE_BASE_ERROR_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "mmu_core/base/reason.h"

namespace mmu {

// A value.
struct ErrorDetail {
  Reason reason = Reason::kNone;
  std::string field;  // e.g. "size_bytes"; empty if no single field is to blame
  int kvm_errno = 0;  // e.g. EEXIST
  // Facts of the message by name, e.g. "owner", "open_page_count". Any text;
  // empty if the three members above say everything.
  std::map<std::string, std::string> metadata = {};
};

// Makes a status that carries `detail`.
absl::Status MakeError(absl::StatusCode code, const ErrorDetail& detail,
                       std::string_view message);

// The detail of a status made by MakeError; for another status, an empty
// detail.
ErrorDetail DetailOf(const absl::Status& status);

// "EINVAL", "EEXIST", ...; "" for 0.
std::string_view ErrnoName(int kvm_errno);

}  // namespace mmu

#endif  // MMU_CORE_BASE_ERROR_H_
