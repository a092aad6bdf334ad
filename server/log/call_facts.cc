#include "server/log/call_facts.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Valid names are shorter.
constexpr size_t kMaxBytes = 200;

std::string Cut(const std::string& value) {
  return value.size() <= kMaxBytes
             ? value
             : absl::StrCat(value.substr(0, kMaxBytes), "...");
}

// The string field of that name; empty if the message has none.
std::string Text(const Message& message, const char* field_name) {
  const FieldDescriptor* const field =
      message.GetDescriptor()->FindFieldByName(field_name);
  if (field == nullptr || field->is_repeated() ||
      field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
    return "";
  }
  return message.GetReflection()->GetString(message, field);
}

// The name of the message in a field `vm`, which update requests have.
std::string NameOfVmMessage(const Message& request) {
  const FieldDescriptor* const field =
      request.GetDescriptor()->FindFieldByName("vm");
  if (field == nullptr || field->is_repeated() ||
      field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    return "";
  }
  return Text(request.GetReflection()->GetMessage(request, field), "name");
}

bool ChangesState(const Message& request) {
  const Descriptor* const type = request.GetDescriptor();
  if (type == v1::AgeRangeRequest::descriptor()) {
    return static_cast<const v1::AgeRangeRequest&>(request).mode() !=
           v1::AGING_MODE_TEST;
  }
  const FieldDescriptor* const only = type->FindFieldByName("validate_only");
  if (only != nullptr && only->cpp_type() == FieldDescriptor::CPPTYPE_BOOL &&
      request.GetReflection()->GetBool(request, only)) {
    return false;
  }
  return type->FindFieldByName("request_id") != nullptr ||
         type == v1::HarvestOpen::descriptor() ||
         type == google::longrunning::CancelOperationRequest::descriptor() ||
         type == google::longrunning::DeleteOperationRequest::descriptor();
}

// "vms/alpha" of "vms/alpha/memslots/3".
std::string VmPart(const std::string& name) {
  const size_t slash = name.find('/', 4);
  return name.substr(0, std::min(slash, name.size()));
}

}  // namespace

CallFacts FactsOf(const Message& request) {
  CallFacts facts;
  facts.changes_state = ChangesState(request);
  facts.request_id = Cut(Text(request, "request_id"));
  facts.vm = Text(request, "vm");
  if (facts.vm.empty()) facts.vm = NameOfVmMessage(request);
  if (const std::string id = Text(request, "vm_id"); !id.empty()) {
    facts.vm = absl::StrCat("vms/", id);
  }
  for (const char* field : {"name", "operation"}) {
    const std::string name = Text(request, field);
    if (absl::StartsWith(name, "vms/")) facts.vm = VmPart(name);
    if (absl::StartsWith(name, "operations/")) facts.operation = Cut(name);
  }
  facts.vm = Cut(facts.vm);
  return facts;
}

}  // namespace mmud
