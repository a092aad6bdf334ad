// Who is at the other end of a call.

#ifndef SERVER_LOG_PEER_H_
#define SERVER_LOG_PEER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "server/log/logging.h"

namespace mmud {

// "uid" and "pid" of a caller on a Unix socket, as the kernel noted them when
// it connected; "address" of any other. `grpc_peer` is what a ServerContext
// says:
//
//   "fd:7"                    the connection's descriptor: gRPC was given it
//                             (grpc_server.cc). The kernel is asked.
//   "ipv4:127.0.0.1:4711"     gRPC accepted it: the address is all there is.
//   "ipv6:%5B::1%5D:4711"     likewise, escaped as in a URI.
//
// REQUIRES: the call has no status yet, which keeps its connection's descriptor
// open, so that its number means nothing else. Thread-safe.
LogFields DescribePeer(absl::string_view grpc_peer);

}  // namespace mmud

#endif  // SERVER_LOG_PEER_H_
