#include "client/mmu_client/error_info.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

// The type URL of the google.rpc.Status in the payload of an absl::Status.
constexpr char kPayloadUrl[] = "type.googleapis.com/google.rpc.Status";

ErrorInfo Parse(const google::rpc::Status& status) {
  ErrorInfo info;
  info.message = status.message();
  for (const google::protobuf::Any& detail : status.details()) {
    if (google::rpc::ErrorInfo error; detail.UnpackTo(&error)) {
      info.reason = error.reason();
      info.domain = error.domain();
      info.metadata = {error.metadata().begin(), error.metadata().end()};
    } else if (google::rpc::BadRequest bad; detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        info.field_violations.push_back(
            {violation.field(), violation.description()});
      }
    } else if (google::rpc::PreconditionFailure failure;
               detail.UnpackTo(&failure)) {
      for (const auto& violation : failure.violations()) {
        info.preconditions.push_back(violation.description());
      }
    } else if (google::rpc::ResourceInfo resource; detail.UnpackTo(&resource)) {
      info.resource_name = resource.resource_name();
    } else if (google::rpc::RetryInfo retry; detail.UnpackTo(&retry)) {
      info.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                         absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return info;
}

std::string Readable(const ErrorInfo& info) {
  std::string details;
  const auto add = [&details](const auto&... parts) {
    absl::StrAppend(&details, details.empty() ? "" : "; ", parts...);
  };
  if (!info.reason.empty()) add(info.reason);
  for (const FieldViolation& violation : info.field_violations) {
    add(violation.field, ": ", violation.rule);
  }
  for (const auto& [key, value] : info.metadata) add(key, "=", value);
  if (details.empty()) return info.message;
  return absl::StrCat(info.message, " [", details, "]");
}

absl::Status Make(absl::StatusCode code, const google::rpc::Status& status) {
  absl::Status result(code, Readable(Parse(status)));
  result.SetPayload(kPayloadUrl, absl::Cord(status.SerializeAsString()));
  return result;
}

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) details.Clear();
  details.set_code(static_cast<int>(status.error_code()));
  details.set_message(status.error_message());
  return Make(static_cast<absl::StatusCode>(status.error_code()), details);
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  if (status.code() == 0) return absl::OkStatus();
  return Make(static_cast<absl::StatusCode>(status.code()), status);
}

ErrorInfo ErrorInfoOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  google::rpc::Status details;
  if (payload && details.ParseFromString(std::string(*payload))) {
    return Parse(details);
  }
  ErrorInfo info;
  info.message = std::string(status.message());
  return info;
}

v1::ErrorReason ReasonOf(const absl::Status& status) {
  return ReasonOf(ErrorInfoOf(status));
}

v1::ErrorReason ReasonOf(const ErrorInfo& info) {
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  // An unknown name leaves `reason` unchanged.
  v1::ErrorReason_Parse(info.reason, &reason);
  return reason;
}

}  // namespace mmud::client
