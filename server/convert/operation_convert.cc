#include "server/convert/operation_convert.h"

#include <utility>

#include "absl/status/statusor.h"
#include "google/protobuf/any.pb.h"
#include "server/base/status_mapping.h"

namespace mmud {
namespace {

google::protobuf::Any ToAny(const PackedMessage& message) {
  google::protobuf::Any any;
  any.set_type_url(message.type_url);
  any.set_value(message.value);
  return any;
}

}  // namespace

PackedMessage Pack(const google::protobuf::Message& message) {
  google::protobuf::Any any;
  any.PackFrom(message);
  return {.type_url = any.type_url(), .value = std::move(*any.mutable_value())};
}

google::longrunning::Operation ToProto(const OperationView& operation) {
  google::longrunning::Operation proto;
  proto.set_name(operation.name);
  *proto.mutable_metadata() = ToAny(operation.metadata);
  if (!operation.done) return proto;
  proto.set_done(true);
  if (operation.error.ok()) {
    *proto.mutable_response() = ToAny(operation.response);
  } else {
    *proto.mutable_error() = ToRpcStatus(operation.error);
  }
  return proto;
}

absl::StatusOr<google::longrunning::Operation> ToProto(
    const absl::StatusOr<OperationView>& operation) {
  if (!operation.ok()) return operation.status();
  return ToProto(*operation);
}

}  // namespace mmud
