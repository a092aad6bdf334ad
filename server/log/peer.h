// The peer of a call.

#ifndef SERVER_LOG_PEER_H_
#define SERVER_LOG_PEER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "server/log/logging.h"

namespace mmud {

// Returns "uid" and "pid" of a caller on a Unix socket, as the kernel noted
// them when it connected, or "address" of any other caller. `grpc_peer` comes
// from the ServerContext:
//
//   "fd:7"                    gRPC was given the connection's descriptor
//                             (grpc_server.cc): the kernel is asked.
//   "ipv4:127.0.0.1:4711"     gRPC accepted the connection: only the address
//                             is known.
//   "ipv6:%5B::1%5D:4711"     likewise, escaped as in a URI.
//
// REQUIRES: the status of the call is not sent yet. Until then the descriptor
// of its connection stays open, so that its number means nothing else.
// Thread-safe.
LogFields DescribePeer(absl::string_view grpc_peer);

}  // namespace mmud

#endif  // SERVER_LOG_PEER_H_
