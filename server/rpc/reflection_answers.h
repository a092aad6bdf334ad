// Questions about services and messages, and their answers.

#ifndef SERVER_RPC_REFLECTION_ANSWERS_H_
#define SERVER_RPC_REFLECTION_ANSWERS_H_

#include <set>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace mmud {

// The answers to the questions of one stream. Thread-compatible.
class ReflectionAnswers {
 public:
  // `services`: what list_services says; outlives this.
  explicit ReflectionAnswers(
      const std::vector<std::string>& services,
      const google::protobuf::DescriptorPool& pool =
          *google::protobuf::DescriptorPool::generated_pool())
      : services_(services), pool_(pool) {}

  // What is not known is an answer as well: NOT_FOUND in error_response, or
  // INVALID_ARGUMENT for a question that asks nothing.
  grpc::reflection::v1alpha::ServerReflectionResponse Answer(
      const grpc::reflection::v1alpha::ServerReflectionRequest& request);

 private:
  using Response = grpc::reflection::v1alpha::ServerReflectionResponse;

  // The file, or NOT_FOUND if it is null; `what` says what was asked for.
  void AddFile(const google::protobuf::FileDescriptor* file,
               const std::string& what, Response* response);
  // With what it imports, before it, but for what the stream has had.
  void AddWithImports(const google::protobuf::FileDescriptor& file,
                      grpc::reflection::v1alpha::FileDescriptorResponse* files);

  const std::vector<std::string>& services_;
  const google::protobuf::DescriptorPool& pool_;
  std::set<std::string> sent_;  // names of files
};

}  // namespace mmud

#endif  // SERVER_RPC_REFLECTION_ANSWERS_H_
