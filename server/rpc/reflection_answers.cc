#include "server/rpc/reflection_answers.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/rpc/code.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1alpha::FileDescriptorResponse;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

void SetError(google::rpc::Code code, const std::string& message,
              ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(code);
  response->mutable_error_response()->set_error_message(message);
}

}  // namespace

ServerReflectionResponse ReflectionAnswers::Answer(
    const ServerReflectionRequest& request) {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      AddFile(pool_.FindFileByName(request.file_by_filename()),
              absl::StrCat("file ", Quote(request.file_by_filename())),
              &response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      AddFile(pool_.FindFileContainingSymbol(request.file_containing_symbol()),
              absl::StrCat("symbol ", Quote(request.file_containing_symbol())),
              &response);
      break;
    case ServerReflectionRequest::kFileContainingExtension: {
      const auto& asked = request.file_containing_extension();
      const auto* type = pool_.FindMessageTypeByName(asked.containing_type());
      const FieldDescriptor* extension =
          type == nullptr
              ? nullptr
              : pool_.FindExtensionByNumber(type, asked.extension_number());
      AddFile(extension == nullptr ? nullptr : extension->file(),
              absl::StrCat("extension ", asked.extension_number(), " of ",
                           Quote(asked.containing_type())),
              &response);
      break;
    }
    case ServerReflectionRequest::kAllExtensionNumbersOfType: {
      const std::string& name = request.all_extension_numbers_of_type();
      const auto* type = pool_.FindMessageTypeByName(name);
      if (type == nullptr) {
        AddFile(nullptr, absl::StrCat("message ", Quote(name)), &response);
        break;
      }
      auto* numbers = response.mutable_all_extension_numbers_response();
      numbers->set_base_type_name(name);
      std::vector<const FieldDescriptor*> extensions;
      pool_.FindAllExtensions(type, &extensions);
      for (const FieldDescriptor* extension : extensions) {
        numbers->add_extension_number(extension->number());
      }
      break;
    }
    case ServerReflectionRequest::kListServices: {
      auto* services = response.mutable_list_services_response();
      for (const std::string& name : services_) {
        services->add_service()->set_name(name);
      }
      break;
    }
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      SetError(google::rpc::INVALID_ARGUMENT, "message_request is required",
               &response);
      break;
  }
  return response;
}

void ReflectionAnswers::AddFile(const FileDescriptor* file,
                                const std::string& what, Response* response) {
  if (file == nullptr) {
    SetError(google::rpc::NOT_FOUND, absl::StrCat("there is no ", what),
             response);
    return;
  }
  FileDescriptorResponse* files = response->mutable_file_descriptor_response();
  // The requested file is sent again even if the stream has sent it already:
  // the answer must contain it.
  sent_.erase(file->name());
  AddWithImports(*file, files);
  // The requested file comes first.
  std::reverse(files->mutable_file_descriptor_proto()->begin(),
               files->mutable_file_descriptor_proto()->end());
}

void ReflectionAnswers::AddWithImports(const FileDescriptor& file,
                                       FileDescriptorResponse* files) {
  if (!sent_.insert(file.name()).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) {
    AddWithImports(*file.dependency(i), files);
  }
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  files->add_file_descriptor_proto(proto.SerializeAsString());
}

}  // namespace mmud
