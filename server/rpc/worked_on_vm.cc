#include "server/rpc/worked_on_vm.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace mmud {
namespace {

using google::protobuf::FieldDescriptor;

constexpr absl::string_view kVms = "vms/";

// The field of that name and type; null if the message has none.
const FieldDescriptor* FieldOf(const google::protobuf::Message& message,
                               const char* name,
                               FieldDescriptor::CppType type) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  return field == nullptr || field->is_repeated() || field->cpp_type() != type
             ? nullptr
             : field;
}

std::string TextOf(const google::protobuf::Message& message, const char* name) {
  const FieldDescriptor* field =
      FieldOf(message, name, FieldDescriptor::CPPTYPE_STRING);
  return field == nullptr ? ""
                          : message.GetReflection()->GetString(message, field);
}

}  // namespace

std::string WorkedOnVm(const google::protobuf::Message& request) {
  if (std::string vm = TextOf(request, "vm"); !vm.empty()) return vm;
  if (request.GetDescriptor()->FindFieldByName("vm_id") != nullptr) return "";
  const FieldDescriptor* vm =
      FieldOf(request, "vm", FieldDescriptor::CPPTYPE_MESSAGE);
  if (vm != nullptr) {
    return TextOf(request.GetReflection()->GetMessage(request, vm), "name");
  }
  const std::string name = TextOf(request, "name");
  if (!absl::StartsWith(name, kVms)) return "";
  const size_t end = name.find('/', kVms.size());
  return end == std::string::npos ? "" : name.substr(0, end);
}

}  // namespace mmud
