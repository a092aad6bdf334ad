// What the log says about a request, and what it does not.

#ifndef SERVER_LOG_CALL_FACTS_H_
#define SERVER_LOG_CALL_FACTS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace mmud {

// The names in a request. Nothing else of a request is ever logged: neither
// what a guest's memory holds nor what only the caller should know. Long names
// are cut. A value.
struct CallFacts {
  std::string vm;          // "vms/alpha"; empty if it names none
  std::string operation;   // "operations/7", likewise
  std::string request_id;  // likewise
  bool changes_state = false;
};

// What the fields `vm` (a name, or a message with one), `vm_id`, `name` and
// `request_id` say.
//
// A request that can carry a request_id changes state (the conventions of the
// API say so), unless it only wants to know: validate_only, or aging that does
// not clear. So do the cancelling and the deletion of an operation, whose
// messages are not ours, and a stream that harvests.
CallFacts FactsOf(const google::protobuf::Message& request);

}  // namespace mmud

#endif  // SERVER_LOG_CALL_FACTS_H_
