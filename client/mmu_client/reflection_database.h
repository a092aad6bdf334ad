// The .proto files of a daemon, asked for over server reflection.

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

// What a google::protobuf::DescriptorPool reads its descriptors from. Each file
// is asked for once. Thread-compatible; a pool calls it under its own lock.
class ReflectionDatabase : public google::protobuf::DescriptorDatabase {
 public:
  explicit ReflectionDatabase(std::shared_ptr<const Caller> caller);
  ~ReflectionDatabase() override;

  // Full names of the daemon's services, ascending.
  absl::StatusOr<std::vector<std::string>> ListServices();

  // Why the last question had no answer: an error of the call, or OK if the
  // daemon has nothing of that name.
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
  // Sends one question and keeps the files of its answer.
  absl::StatusOr<grpc::reflection::v1alpha::ServerReflectionResponse> Ask(
      const grpc::reflection::v1alpha::ServerReflectionRequest& request);

  const std::shared_ptr<const Caller> caller_;
  google::protobuf::SimpleDescriptorDatabase known_;
  absl::Status status_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_REFLECTION_DATABASE_H_
