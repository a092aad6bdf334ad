#include "client/mmu_client/fake_refusal.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mmud::client {

grpc::Status Refused(grpc::StatusCode code, v1::ErrorReason reason,
                     const std::map<std::string, std::string>& facts) {
  google::rpc::Status status;
  status.set_code(code);
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(reason));
  info.set_domain("mmud");
  info.mutable_metadata()->insert(facts.begin(), facts.end());
  status.add_details()->PackFrom(info);
  google::rpc::ResourceInfo resource;
  resource.set_resource_name(kFakeVm);
  status.add_details()->PackFrom(resource);
  return grpc::Status(code, v1::ErrorReason_Name(reason),
                      status.SerializeAsString());
}

grpc::Status Aborted(v1::ErrorReason reason) {
  return Refused(grpc::StatusCode::ABORTED, reason);
}

}  // namespace mmud::client
