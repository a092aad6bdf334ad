// Calls any method by name. The daemon describes the types of the messages, so
// no .proto files are needed, and services that this client was not built with
// can be called.

#ifndef CLIENT_MMU_CLIENT_DYNAMIC_CLIENT_H_
#define CLIENT_MMU_CLIENT_DYNAMIC_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace mmud::client {

class Caller;
class ReflectionDatabase;

// Descriptors live as long as this object. Thread-compatible.
class DynamicClient {
 public:
  explicit DynamicClient(std::shared_ptr<const Caller> caller);
  ~DynamicClient();
  DynamicClient(const DynamicClient&) = delete;
  DynamicClient& operator=(const DynamicClient&) = delete;

  // Full names of the daemon's services, ascending.
  absl::StatusOr<std::vector<std::string>> ListServices();

  // `name` is "mmud.v1.VmService", or "VmService" if only one service ends in
  // that. NOT_FOUND lists the existing names.
  absl::StatusOr<const google::protobuf::ServiceDescriptor*> FindService(
      absl::string_view name);

  // `name` is "mmud.v1.VmService/GetVm" or "VmService/GetVm", with '/' or '.'.
  // NOT_FOUND lists the existing names.
  absl::StatusOr<const google::protobuf::MethodDescriptor*> FindMethod(
      absl::string_view name);

  // The declaration of a service, method, message or enum, as in a .proto
  // file. Full names; services also as above. NOT_FOUND.
  absl::StatusOr<std::string> Describe(absl::string_view name);

  // Calls a method of this object. `next_request` fills in one request after
  // the other and returns false when there is none; a method that takes one
  // takes the first. `on_response` gets each response, on another thread, never
  // two at a time. The first error of the three ends the call and is returned.
  // The call is not retried, since the effect of the method is unknown.
  absl::Status Call(
      const google::protobuf::MethodDescriptor& method,
      absl::FunctionRef<absl::StatusOr<bool>(google::protobuf::Message*)>
          next_request,
      absl::FunctionRef<absl::Status(const google::protobuf::Message&)>
          on_response);

 private:
  struct Descriptions;  // pool and messages, over the database

  absl::Status NoSuch(absl::string_view kind, absl::string_view name);

  const std::shared_ptr<const Caller> caller_;
  const std::unique_ptr<Descriptions> descriptions_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_DYNAMIC_CLIENT_H_
