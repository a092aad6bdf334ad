#include "client/mmu_client/reflection_database.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/error_info.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "grpcpp/client_context.h"

namespace mmud::client {

using google::protobuf::FileDescriptorProto;
using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

ReflectionDatabase::ReflectionDatabase(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)) {}

ReflectionDatabase::~ReflectionDatabase() = default;

absl::StatusOr<ServerReflectionResponse> ReflectionDatabase::Ask(
    const ServerReflectionRequest& request) {
  grpc::ClientContext context;
  caller_->Prepare(caller_->DeadlineOf(CallKind::kRead), &context);
  const auto stub = ServerReflection::NewStub(caller_->channel());
  const auto stream = stub->ServerReflectionInfo(&context);
  ServerReflectionResponse response;
  stream->Write(request);
  stream->WritesDone();
  const bool answered = stream->Read(&response);
  // Finish needs an empty stream. A server sends one response per request.
  ServerReflectionResponse more;
  while (stream->Read(&more)) {
  }
  status_ = FromGrpcStatus(stream->Finish());
  if (!status_.ok()) return status_;
  if (!answered || response.has_error_response()) {
    return absl::NotFoundError(response.error_response().error_message());
  }
  for (const std::string& bytes :
       response.file_descriptor_response().file_descriptor_proto()) {
    FileDescriptorProto file;
    if (!file.ParseFromString(bytes)) {
      status_ = absl::InternalError(
          "the daemon's reflection sent an invalid descriptor of a file");
      return status_;
    }
    FileDescriptorProto present;
    if (!known_.FindFileByName(file.name(), &present)) known_.Add(file);
  }
  return response;
}

absl::StatusOr<std::vector<std::string>> ReflectionDatabase::ListServices() {
  ServerReflectionRequest request;
  request.set_list_services("*");
  const auto response = Ask(request);
  if (!response.ok()) return response.status();
  std::vector<std::string> names;
  for (const auto& service : response->list_services_response().service()) {
    names.push_back(service.name());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool ReflectionDatabase::FindFileByName(const std::string& name,
                                        FileDescriptorProto* output) {
  if (known_.FindFileByName(name, output)) return true;
  ServerReflectionRequest request;
  request.set_file_by_filename(name);
  return Ask(request).ok() && known_.FindFileByName(name, output);
}

bool ReflectionDatabase::FindFileContainingSymbol(const std::string& symbol,
                                                  FileDescriptorProto* output) {
  if (known_.FindFileContainingSymbol(symbol, output)) return true;
  ServerReflectionRequest request;
  request.set_file_containing_symbol(symbol);
  return Ask(request).ok() && known_.FindFileContainingSymbol(symbol, output);
}

bool ReflectionDatabase::FindFileContainingExtension(
    const std::string& containing_type, int number,
    FileDescriptorProto* output) {
  if (known_.FindFileContainingExtension(containing_type, number, output)) {
    return true;
  }
  ServerReflectionRequest request;
  request.mutable_file_containing_extension()->set_containing_type(
      containing_type);
  request.mutable_file_containing_extension()->set_extension_number(number);
  return Ask(request).ok() &&
         known_.FindFileContainingExtension(containing_type, number, output);
}

}  // namespace mmud::client
