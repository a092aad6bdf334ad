// Messages of the API as JSON, in the form that all programs of this folder
// print.
//
// It is proto3's JSON with the field names of the .proto files and every field
// shown, with one exception: a 64-bit number is a number and not a string, so
// that a quantity has one type in all of the output. No quantity of the API is
// above 2^53, where a reader with floating-point numbers would lose digits.
// Times are strings ("1.5s", "2026-11-21T08:24:37Z"), enum values their names.

#ifndef CLIENT_TEXT_MESSAGE_JSON_H_
#define CLIENT_TEXT_MESSAGE_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "nlohmann/json_fwd.hpp"

namespace mmud::client {

using Json = nlohmann::ordered_json;

// The message as a value. INTERNAL if the message cannot be JSON, for example
// if it has an Any of a type that its descriptor pool does not know.
absl::StatusOr<Json> MessageToJson(const google::protobuf::Message& message);

// A time as in messages: "0.000749s". REQUIRES: it is finite.
std::string DurationToJson(absl::Duration duration);

// One value as text with a final line feed, indented by one blank per level.
// Bytes that are not UTF-8 become U+FFFD.
std::string JsonText(const Json& json);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_MESSAGE_JSON_H_
