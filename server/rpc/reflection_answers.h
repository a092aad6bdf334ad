// Answers questions about services and messages.

#ifndef SERVER_RPC_REFLECTION_ANSWERS_H_
#define SERVER_RPC_REFLECTION_ANSWERS_H_

#include <set>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace mmud {

// Makes the answers to the questions of one stream. Thread-compatible.
class ReflectionAnswers {
 public:
  // `services`: the answer to list_services; outlives this.
  explicit ReflectionAnswers(
      const std::vector<std::string>& services,
      const google::protobuf::DescriptorPool& pool =
          *google::protobuf::DescriptorPool::generated_pool())
      : services_(services), pool_(pool) {}

  // An unknown name gets an answer as well: NOT_FOUND in error_response, or
  // INVALID_ARGUMENT for an empty question.
  grpc::reflection::v1alpha::ServerReflectionResponse Answer(
      const grpc::reflection::v1alpha::ServerReflectionRequest& request);

 private:
  using Response = grpc::reflection::v1alpha::ServerReflectionResponse;

  // Adds the file, or NOT_FOUND if it is null; `what` describes the question.
  void AddFile(const google::protobuf::FileDescriptor* file,
               const std::string& what, Response* response);
  // Adds the file and, before it, its imports, except for files that the stream
  // has sent already.
  void AddWithImports(const google::protobuf::FileDescriptor& file,
                      grpc::reflection::v1alpha::FileDescriptorResponse* files);

  const std::vector<std::string>& services_;
  const google::protobuf::DescriptorPool& pool_;
  std::set<std::string> sent_;  // names of files
};

}  // namespace mmud

#endif  // SERVER_RPC_REFLECTION_ANSWERS_H_
