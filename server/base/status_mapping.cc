#include "server/base/status_mapping.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmud/v1/error_reasons.pb.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

// Trailers of a call may hold 8 KiB, and contain the message at least twice.
constexpr size_t kMaxMessage = 900;

std::string CleanMessage(absl::string_view message) {
  std::string text(message.substr(0, kMaxMessage));
  for (char c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) {
      return absl::CEscape(text).substr(0, kMaxMessage);
    }
  }
  return text;
}

// For errors without a reason that the API has.
mmu::Reason DefaultReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return mmu::Reason::kInvalidRequest;
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return mmu::Reason::kCallCancelled;
    case absl::StatusCode::kOutOfRange:
      return mmu::Reason::kInvalidRange;
    case absl::StatusCode::kResourceExhausted:
      return mmu::Reason::kResourceExhaustedMemory;
    case absl::StatusCode::kDataLoss:
      return mmu::Reason::kTraceCorrupt;
    default:
      return mmu::Reason::kInternalError;
  }
}

// The reason's name. mmu_core has reasons for its own callers that are none of
// the API; no call should end with one, and none shows one.
std::string NameOf(mmu::Reason reason, absl::StatusCode code) {
  const std::string name(mmu::ToString(reason));
  v1::ErrorReason of_api = v1::ERROR_REASON_UNSPECIFIED;
  if (v1::ErrorReason_Parse(name, &of_api)) return name;
  return std::string(mmu::ToString(DefaultReason(code)));
}

void AddErrorInfo(const mmu::ErrorDetail& detail, const ApiErrorDetail& api,
                  const std::string& reason, google::rpc::Status* out) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain(kErrorDomain);
  if (!detail.field.empty()) (*info.mutable_metadata())["field"] = detail.field;
  if (detail.kvm_errno != 0) {
    (*info.mutable_metadata())["errno"] =
        std::string(mmu::ErrnoName(detail.kvm_errno));
  }
  for (const auto& [name, value] : detail.metadata) {
    (*info.mutable_metadata())[name] = CleanMessage(value);
  }
  if (!api.limit.empty()) (*info.mutable_metadata())["limit"] = api.limit;
  out->add_details()->PackFrom(info);
}

// Adds the detail message that belongs to the code.
void AddDetailOfCode(absl::StatusCode code, const mmu::ErrorDetail& detail,
                     const ApiErrorDetail& api, const std::string& reason,
                     google::rpc::Status* out) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange: {
      if (detail.field.empty()) return;
      google::rpc::BadRequest bad;
      auto* violation = bad.add_field_violations();
      violation->set_field(detail.field);
      violation->set_description(out->message());
      out->add_details()->PackFrom(bad);
      return;
    }
    case absl::StatusCode::kFailedPrecondition: {
      google::rpc::PreconditionFailure failure;
      auto* violation = failure.add_violations();
      violation->set_type(reason);
      violation->set_subject(api.resource_name);
      violation->set_description(out->message());
      out->add_details()->PackFrom(failure);
      return;
    }
    case absl::StatusCode::kResourceExhausted: {
      google::rpc::QuotaFailure failure;
      auto* violation = failure.add_violations();
      violation->set_subject(api.resource_name.empty() ? "daemon"
                                                       : api.resource_name);
      violation->set_description(out->message());
      out->add_details()->PackFrom(failure);
      return;
    }
    default:
      return;
  }
}

void AddRetryInfo(absl::Duration delay, google::rpc::Status* out) {
  google::rpc::RetryInfo retry;
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(nanos % 1'000'000'000));
  out->add_details()->PackFrom(retry);
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  const mmu::ErrorDetail detail = mmu::DetailOf(status);
  const ApiErrorDetail api = ApiDetailOf(status);
  const std::string reason = NameOf(detail.reason, status.code());
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(CleanMessage(status.message()));
  AddErrorInfo(detail, api, reason, &out);
  AddDetailOfCode(status.code(), detail, api, reason, &out);
  if (!api.resource_type.empty()) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(api.resource_type);
    resource.set_resource_name(api.resource_name);
    out.add_details()->PackFrom(resource);
  }
  if (api.retry_delay >= absl::ZeroDuration()) {
    AddRetryInfo(api.retry_delay, &out);
  } else if (status.code() == absl::StatusCode::kUnavailable) {
    AddRetryInfo(absl::Seconds(1), &out);
  }
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc.code()), rpc.message(),
                      rpc.SerializeAsString());
}

}  // namespace mmud
