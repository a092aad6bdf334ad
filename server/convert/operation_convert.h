// Converts between google.longrunning.Operation and the operations of
// server/control/operation_store.h.

#ifndef SERVER_CONVERT_OPERATION_CONVERT_H_
#define SERVER_CONVERT_OPERATION_CONVERT_H_

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/message.h"
#include "server/control/operation.h"

namespace mmud {

PackedMessage Pack(const google::protobuf::Message& message);

google::longrunning::Operation ToProto(const OperationView& operation);
// Converts a result of the store; an error is returned unchanged.
absl::StatusOr<google::longrunning::Operation> ToProto(
    const absl::StatusOr<OperationView>& operation);

}  // namespace mmud

#endif  // SERVER_CONVERT_OPERATION_CONVERT_H_
