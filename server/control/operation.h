// A long-running operation as it is at one time.

#ifndef SERVER_CONTROL_OPERATION_H_
#define SERVER_CONTROL_OPERATION_H_

#include <string>

#include "absl/status/status.h"

namespace mmud {

// A message of an API as bytes, with the name of its type. Nothing here reads
// it: server/convert/operation_convert.h packs and unpacks.
struct PackedMessage {
  std::string type_url;
  std::string value;
};

// A value.
struct OperationView {
  std::string name;  // "operations/UUID"
  bool done = false;
  PackedMessage metadata;
  // Once it is done: why it failed, or what it returned.
  absl::Status error;
  PackedMessage response;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_OPERATION_H_
