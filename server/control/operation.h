// A snapshot of a long-running operation.

#ifndef SERVER_CONTROL_OPERATION_H_
#define SERVER_CONTROL_OPERATION_H_

#include <string>

#include "absl/status/status.h"

namespace mmud {

// A message of an API as bytes, with the name of its type. This code does not
// parse it: server/convert/operation_convert.h packs and unpacks it.
struct PackedMessage {
  std::string type_url;
  std::string value;
};

// A value.
struct OperationView {
  std::string name;  // "operations/UUID"
  bool done = false;
  PackedMessage metadata;
  // Set once the operation is done: its error, or its result.
  absl::Status error;
  PackedMessage response;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_OPERATION_H_
