#include "server/base/errors.h"

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

constexpr char kResourceUrl[] = "mmud.resource";  // "type\nname"
constexpr char kRetryUrl[] = "mmud.retry";        // nanoseconds
constexpr char kLimitUrl[] = "mmud.limit";        // name
constexpr size_t kMaxQuoted = 80;

// The same error with this field and this message.
absl::Status Changed(absl::Status status, absl::string_view field,
                     const std::string& message) {
  if (status.ok()) return status;
  mmu::ErrorDetail detail = mmu::DetailOf(status);
  detail.field = std::string(field);
  absl::Status changed = mmu::MakeError(status.code(), detail, message);
  const ApiErrorDetail api = ApiDetailOf(status);
  if (!api.resource_type.empty()) {
    changed =
        WithResource(std::move(changed), api.resource_type, api.resource_name);
  }
  for (const char* url : {kRetryUrl, kLimitUrl}) {
    if (const absl::optional<absl::Cord> payload = status.GetPayload(url)) {
      changed.SetPayload(url, *payload);
    }
  }
  return changed;
}

}  // namespace

std::string Quote(absl::string_view value) {
  if (value.size() <= kMaxQuoted) {
    return absl::StrCat("\"", absl::CHexEscape(value), "\"");
  }
  return absl::StrCat("\"", absl::CHexEscape(value.substr(0, kMaxQuoted)),
                      "\"... (", value.size(), " bytes)");
}

absl::Status InvalidField(mmu::Reason reason, absl::string_view field,
                          absl::string_view message) {
  mmu::ErrorDetail detail;
  detail.reason = reason;
  detail.field = std::string(field);
  return mmu::MakeError(absl::StatusCode::kInvalidArgument, detail,
                        std::string(message));
}

absl::Status WrongValue(mmu::Reason reason, absl::string_view field,
                        const absl::AlphaNum& value, absl::string_view rule) {
  return InvalidField(
      reason, field, absl::StrCat(field, " is ", value, "; it must be ", rule));
}

absl::Status ApiError(absl::StatusCode code, mmu::Reason reason,
                      absl::string_view message) {
  mmu::ErrorDetail detail;
  detail.reason = reason;
  return mmu::MakeError(code, detail, std::string(message));
}

absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name) {
  status.SetPayload(
      kResourceUrl,
      absl::Cord(absl::StrCat(
          type, "\n", absl::CHexEscape(name.substr(0, kMaxQuoted * 2)))));
  return status;
}

absl::Status AboutVm(absl::Status status, absl::string_view vm) {
  return WithResource(std::move(status), "mmud.v1.Vm", vm);
}

absl::Status WithRetryDelay(absl::Status status, absl::Duration delay) {
  status.SetPayload(kRetryUrl,
                    absl::Cord(absl::StrCat(absl::ToInt64Nanoseconds(delay))));
  return status;
}

absl::Status InField(absl::Status status, absl::string_view prefix) {
  const std::string field = mmu::DetailOf(status).field;
  return OfField(std::move(status),
                 field.empty() ? std::string(absl::StripSuffix(prefix, "."))
                               : absl::StrCat(prefix, field));
}

absl::Status OfField(absl::Status status, absl::string_view field) {
  const std::string message(status.message());
  return Changed(std::move(status), field, message);
}

absl::Status InFields(absl::Status status,
                      std::initializer_list<FieldName> names) {
  const std::string parameter = mmu::DetailOf(status).field;
  const size_t last = parameter.find_last_of('.') + 1;
  for (const FieldName& name : names) {
    std::string field;
    if (name.parameter == parameter) {
      field = std::string(name.field);
    } else if (name.parameter == absl::string_view(parameter).substr(last)) {
      field = absl::StrCat(parameter.substr(0, last), name.field);
    } else {
      continue;
    }
    std::string message(status.message());
    // "a.b[2].c" is named by "c".
    if (!absl::StrContains(message,
                           field.substr(field.find_last_of('.') + 1))) {
      message = absl::StrCat(field, ": ", message);
    }
    return Changed(std::move(status), field, message);
  }
  return status;
}

ApiErrorDetail ApiDetailOf(const absl::Status& status) {
  ApiErrorDetail detail;
  if (const absl::optional<absl::Cord> payload =
          status.GetPayload(kResourceUrl)) {
    const std::vector<std::string> parts =
        absl::StrSplit(std::string(*payload), absl::MaxSplits('\n', 1));
    detail.resource_type = parts[0];
    if (parts.size() > 1) detail.resource_name = parts[1];
  }
  if (const absl::optional<absl::Cord> payload = status.GetPayload(kRetryUrl)) {
    int64_t nanos = 0;
    if (absl::SimpleAtoi(std::string(*payload), &nanos)) {
      detail.retry_delay = absl::Nanoseconds(nanos);
    }
  }
  if (const absl::optional<absl::Cord> payload = status.GetPayload(kLimitUrl)) {
    detail.limit = std::string(*payload);
  }
  return detail;
}

absl::Status VmNotFound(absl::string_view name) {
  return AboutVm(
      ApiError(absl::StatusCode::kNotFound, mmu::Reason::kVmNotFound,
               absl::StrCat("there is no VM ", Quote(name),
                            "; VmService.ListVms shows those that exist")),
      name);
}

absl::Status VmDeleted(absl::string_view name) {
  return AboutVm(
      ApiError(absl::StatusCode::kFailedPrecondition, mmu::Reason::kVmDeleted,
               absl::StrCat(Quote(name),
                            " is being deleted, which cannot be undone; its "
                            "name is free again once GetVm says VM_NOT_FOUND")),
      name);
}

absl::Status MemslotNotFound(absl::string_view name) {
  return WithResource(
      ApiError(absl::StatusCode::kNotFound, mmu::Reason::kMemslotNotFound,
               absl::StrCat("there is no memslot ", Quote(name))),
      "mmud.v1.Memslot", name);
}

absl::Status WorkloadNotFound(absl::string_view name) {
  return WithResource(
      ApiError(absl::StatusCode::kNotFound, mmu::Reason::kWorkloadNotFound,
               absl::StrCat("there is no workload ", Quote(name),
                            "; a VM keeps the one that runs or ran last, which "
                            "ListWorkloads shows")),
      "mmud.lab.v1.Workload", name);
}

absl::Status OperationNotFound(absl::string_view name) {
  return WithResource(
      ApiError(absl::StatusCode::kNotFound, mmu::Reason::kOperationNotFound,
               absl::StrCat("there is no operation ", Quote(name),
                            "; finished ones are forgotten after a while")),
      "google.longrunning.Operation", name);
}

absl::Status DrainingError() {
  return WithRetryDelay(
      ApiError(absl::StatusCode::kUnavailable, mmu::Reason::kDraining,
               "the daemon is shutting down and takes no new work; try again "
               "once it has been started again"),
      absl::Seconds(1));
}

absl::Status LimitExceeded(absl::string_view limit, absl::string_view message) {
  absl::Status status = ApiError(absl::StatusCode::kResourceExhausted,
                                 mmu::Reason::kLimitExceeded, message);
  status.SetPayload(kLimitUrl, absl::Cord(limit));
  return status;
}

}  // namespace mmud
