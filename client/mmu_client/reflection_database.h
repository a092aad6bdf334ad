// The .proto files of a daemon, read by server reflection.

#ifndef CLIENT_MMU_CLIENT_REFLECTION_DATABASE_H_
#define CLIENT_MMU_CLIENT_REFLECTION_DATABASE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/descriptor_database.h"

namespace grpc::reflection::v1alpha {
class ServerReflectionRequest;
class ServerReflectionResponse;
}  // namespace grpc::reflection::v1alpha

namespace mmud::client {

class Caller;

// A database of descriptors for a google::protobuf::DescriptorPool. Each file
// is requested once. Thread-compatible; a pool calls it under its own lock.
class ReflectionDatabase : public google::protobuf::DescriptorDatabase {
 public:
  explicit ReflectionDatabase(std::shared_ptr<const Caller> caller);
  ~ReflectionDatabase() override;

  // Full names of the daemon's services, ascending.
  absl::StatusOr<std::vector<std::string>> ListServices();

  // The reason why the last request found nothing: an error of the call, or OK
  // if the daemon does not have the name.
  const absl::Status& status() const { return status_; }

  bool FindFileByName(const std::string& name,
                      google::protobuf::FileDescriptorProto* output) override;
  bool FindFileContainingSymbol(
      const std::string& symbol,
      google::protobuf::FileDescriptorProto* output) override;
  bool FindFileContainingExtension(
      const std::string& containing_type, int number,
      google::protobuf::FileDescriptorProto* output) override;

 private:
  // Sends one request and stores the files of its answer.
  absl::StatusOr<grpc::reflection::v1alpha::ServerReflectionResponse> Ask(
      const grpc::reflection::v1alpha::ServerReflectionRequest& request);

  const std::shared_ptr<const Caller> caller_;
  google::protobuf::SimpleDescriptorDatabase known_;
  absl::Status status_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_REFLECTION_DATABASE_H_
