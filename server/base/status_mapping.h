// Converts absl::Status to statuses of gRPC: a google.rpc.Status whose details
// always hold one google.rpc.ErrorInfo of domain "mmud", and where they help
// BadRequest, PreconditionFailure, QuotaFailure, ResourceInfo and RetryInfo.

#ifndef SERVER_BASE_STATUS_MAPPING_H_
#define SERVER_BASE_STATUS_MAPPING_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace mmud {

inline constexpr char kErrorDomain[] = "mmud";

// REQUIRES: !status.ok().
google::rpc::Status ToRpcStatus(const absl::Status& status);

// OK stays OK.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace mmud

#endif  // SERVER_BASE_STATUS_MAPPING_H_
