#include "client/text/message_json.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/time_util.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

void NumberFields(const Descriptor& type, Json* json);

// Converts "12" to 12. A string that is not a whole number stays.
void ToNumber(Json* json) {
  if (!json->is_string()) return;
  const std::string text = json->get<std::string>();
  int64_t number = 0;
  uint64_t large = 0;
  if (absl::SimpleAtoi(text, &number)) {
    *json = number;
  } else if (absl::SimpleAtoi(text, &large)) {
    *json = large;
  }
}

void NumberValue(const FieldDescriptor& field, Json* json) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT64:
      ToNumber(json);
      break;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      NumberFields(*field.message_type(), json);
      break;
    default:
      break;
  }
}

// The type that the Any names; null if `pool` does not know it.
const Descriptor* TypeOfAny(const google::protobuf::DescriptorPool& pool,
                            const Json& json) {
  const auto url = json.find("@type");
  if (url == json.end() || !url->is_string()) return nullptr;
  const std::string text = url->get<std::string>();
  return pool.FindMessageTypeByName(text.substr(text.rfind('/') + 1));
}

// Converts the 64-bit numbers of a message, which proto3's JSON has as strings,
// to numbers. Message types with a JSON form of their own stay unchanged: their
// form is no object with the fields of the type, or it has no such numbers. The
// exceptions are Int64Value and UInt64Value, whose form is such a string.
void NumberFields(const Descriptor& type, Json* json) {
  if (type.full_name() == "google.protobuf.Int64Value" ||
      type.full_name() == "google.protobuf.UInt64Value") {
    return ToNumber(json);
  }
  if (!json->is_object()) return;
  if (type.full_name() == "google.protobuf.Any") {
    const Descriptor* held = TypeOfAny(*type.file()->pool(), *json);
    if (held == nullptr) return;
    // The fields of the message are beside "@type". If the type has a JSON form
    // of its own, which only Protobuf's types have, that form is below "value".
    const bool own =
        held->file()->package() == "google.protobuf" && json->contains("value");
    NumberFields(*held, own ? &(*json)["value"] : json);
    return;
  }
  for (auto& [name, value] : json->items()) {
    const FieldDescriptor* field = type.FindFieldByName(name);
    if (field == nullptr) continue;
    if (field->is_map()) {
      for (auto& [key, entry] : value.items()) {
        NumberValue(*field->message_type()->map_value(), &entry);
      }
    } else if (field->is_repeated()) {
      for (Json& element : value) NumberValue(*field, &element);
    } else {
      NumberValue(*field, &value);
    }
  }
}

}  // namespace

absl::StatusOr<Json> MessageToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat(
        message.GetDescriptor()->full_name(), ": ", status.ToString()));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::InternalError(absl::StrCat(
        message.GetDescriptor()->full_name(), " did not become JSON"));
  }
  NumberFields(*message.GetDescriptor(), &json);
  return json;
}

std::string DurationToJson(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return google::protobuf::util::TimeUtil::ToString(proto);
}

std::string JsonText(const Json& json) {
  return json.dump(1, ' ', /*ensure_ascii=*/false,
                   Json::error_handler_t::replace) +
         "\n";
}

}  // namespace mmud::client
