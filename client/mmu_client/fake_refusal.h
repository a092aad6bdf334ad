// Errors of the fakes that the client is tested with, as the daemon sends them.

#ifndef CLIENT_MMU_CLIENT_FAKE_REFUSAL_H_
#define CLIENT_MMU_CLIENT_FAKE_REFUSAL_H_

#include <map>
#include <string>

#include "grpcpp/support/status.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {

// The one VM there is.
inline constexpr char kFakeVm[] = "vms/fake";

// About kFakeVm, with `facts` as the metadata of its ErrorInfo.
grpc::Status Refused(grpc::StatusCode code, v1::ErrorReason reason,
                     const std::map<std::string, std::string>& facts = {});

grpc::Status Aborted(v1::ErrorReason reason);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_FAKE_REFUSAL_H_
