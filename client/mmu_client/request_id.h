// Ids that make a mutation safe to send twice.

#ifndef CLIENT_MMU_CLIENT_REQUEST_ID_H_
#define CLIENT_MMU_CLIENT_REQUEST_ID_H_

#include <string>

namespace mmud::client {

// A new random UUID of version 4, for example
// "6f9619ff-8b86-4d01-b42d-00cf4fc964ff". Thread-safe.
std::string NewRequestId();

// Gives `request` a new id if its type has a request_id and it is empty.
template <typename Request>
void EnsureRequestId(Request& request) {
  if constexpr (requires { request.set_request_id(std::string()); }) {
    if (request.request_id().empty()) request.set_request_id(NewRequestId());
  }
}

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_REQUEST_ID_H_
