// The part of a request that may appear in the log.

#ifndef SERVER_LOG_CALL_FACTS_H_
#define SERVER_LOG_CALL_FACTS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace mmud {

// The names in a request. Nothing else of a request is ever logged, neither
// contents of a guest's memory nor secrets of the caller. Long names are cut. A
// value.
struct CallFacts {
  std::string vm;          // "vms/alpha"; empty if none
  std::string operation;   // "operations/7", likewise
  std::string request_id;  // likewise
  bool changes_state = false;
};

// Extracts the fields `vm` (a name, or a message with one), `vm_id`, `name` and
// `request_id`.
//
// By the API's conventions, a request that can carry a request_id changes
// state, except with validate_only, or for aging that does not clear. These
// also change state: cancelling and deleting an operation, whose messages
// belong to google.longrunning, and a stream that harvests.
CallFacts FactsOf(const google::protobuf::Message& request);

}  // namespace mmud

#endif  // SERVER_LOG_CALL_FACTS_H_
