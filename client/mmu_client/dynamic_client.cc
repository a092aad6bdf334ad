#include "client/mmu_client/dynamic_client.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/caller.h"
#include "client/mmu_client/client_options.h"
#include "client/mmu_client/raw_call.h"
#include "client/mmu_client/reflection_database.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/dynamic_message.h"
#include "google/protobuf/message.h"
#include "grpcpp/client_context.h"

namespace mmud::client {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

struct DynamicClient::Descriptions {
  explicit Descriptions(std::shared_ptr<const Caller> caller)
      : database(std::move(caller)), pool(&database), factory(&pool) {}

  ReflectionDatabase database;
  google::protobuf::DescriptorPool pool;
  google::protobuf::DynamicMessageFactory factory;
};

DynamicClient::DynamicClient(std::shared_ptr<const Caller> caller)
    : caller_(std::move(caller)), descriptions_(new Descriptions(caller_)) {}

DynamicClient::~DynamicClient() = default;

absl::Status DynamicClient::NoSuch(absl::string_view kind,
                                   absl::string_view name) {
  if (!descriptions_->database.status().ok()) {
    return descriptions_->database.status();
  }
  return absl::NotFoundError(
      absl::StrCat("the daemon has no ", kind, " '", name, "'"));
}

absl::StatusOr<std::vector<std::string>> DynamicClient::ListServices() {
  return descriptions_->database.ListServices();
}

absl::StatusOr<const ServiceDescriptor*> DynamicClient::FindService(
    absl::string_view name) {
  const absl::StatusOr<std::vector<std::string>> services = ListServices();
  if (!services.ok()) return services.status();
  std::vector<std::string> found;
  for (const std::string& service : *services) {
    if (service == name) {
      found = {service};
      break;
    }
    if (absl::EndsWith(service, absl::StrCat(".", name))) {
      found.push_back(service);
    }
  }
  if (found.size() != 1) {
    return absl::NotFoundError(absl::StrCat(
        "'", name, "' is ", found.empty() ? "none" : "more than one",
        " of the daemon's services: ",
        absl::StrJoin(found.empty() ? *services : found, ", ")));
  }
  const ServiceDescriptor* service =
      descriptions_->pool.FindServiceByName(found.front());
  if (service == nullptr) return NoSuch("description of", found.front());
  return service;
}

absl::StatusOr<const MethodDescriptor*> DynamicClient::FindMethod(
    absl::string_view name) {
  size_t end = name.rfind('/');
  if (end == name.npos) end = name.rfind('.');
  if (end == name.npos) {
    return absl::NotFoundError(
        absl::StrCat("'", name,
                     "' names no method; give SERVICE/METHOD, for example "
                     "mmud.v1.VmService/GetVm"));
  }
  const auto service = FindService(name.substr(0, end));
  if (!service.ok()) return service.status();
  const std::string method_name(name.substr(end + 1));
  const MethodDescriptor* method = (*service)->FindMethodByName(method_name);
  if (method != nullptr) return method;
  std::vector<std::string> names;
  for (int i = 0; i < (*service)->method_count(); ++i) {
    names.push_back((*service)->method(i)->name());
  }
  return absl::NotFoundError(
      absl::StrCat((*service)->full_name(), " has no method '", method_name,
                   "'; it has ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::string> DynamicClient::Describe(absl::string_view name) {
  const std::string symbol(name);
  const google::protobuf::DescriptorPool& pool = descriptions_->pool;
  if (const auto* message = pool.FindMessageTypeByName(symbol)) {
    return message->DebugString();
  }
  if (const auto* type = pool.FindEnumTypeByName(symbol)) {
    return type->DebugString();
  }
  if (absl::StrContains(name, "/")) {
    const auto method = FindMethod(name);
    if (!method.ok()) return method.status();
    return (*method)->DebugString();
  }
  if (const auto service = FindService(name); service.ok()) {
    return (*service)->DebugString();
  }
  if (const auto method = FindMethod(name); method.ok()) {
    return (*method)->DebugString();
  }
  return NoSuch("service, method, message or enum", name);
}

absl::Status DynamicClient::Call(
    const MethodDescriptor& method,
    absl::FunctionRef<absl::StatusOr<bool>(Message*)> next_request,
    absl::FunctionRef<absl::Status(const Message&)> on_response) {
  const bool streams = method.client_streaming() || method.server_streaming();
  grpc::ClientContext context;
  caller_->Prepare(
      caller_->DeadlineOf(streams ? CallKind::kStream : CallKind::kHeavy),
      &context);
  google::protobuf::DynamicMessageFactory& factory = descriptions_->factory;
  const std::unique_ptr<Message> response(
      factory.GetPrototype(method.output_type())->New());
  RawCall call(
      caller_->channel(),
      absl::StrCat("/", method.service()->full_name(), "/", method.name()),
      &context, [&](const std::string& bytes) -> absl::Status {
        if (!response->ParseFromString(bytes)) {
          return absl::InternalError(absl::StrCat(
              "a response is no ", method.output_type()->full_name()));
        }
        return on_response(*response);
      });
  const std::unique_ptr<Message> request(
      factory.GetPrototype(method.input_type())->New());
  absl::Status status;
  do {
    request->Clear();
    const absl::StatusOr<bool> more = next_request(request.get());
    if (!more.ok()) {
      status = more.status();
      context.TryCancel();
    }
    if (!more.ok() || !*more) break;
  } while (call.Write(request->SerializeAsString()) &&
           method.client_streaming());
  absl::Status end = call.Finish();
  return status.ok() ? end : status;
}

}  // namespace mmud::client
