// /metrics, /healthz and /readyz over HTTP, on one port.

#ifndef SERVER_HTTP_SERVER_H_
#define SERVER_HTTP_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "CivetServer.h"
#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "server/drain_state.h"
#include "server/listen_address.h"

namespace mmud {

// Serves from construction to destruction. Thread-safe.
class HttpServer {
 public:
  // `address` is HOST:PORT; port 0 takes a free one. INVALID_ARGUMENT, or
  // UNAVAILABLE if it cannot listen there. The arguments outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& address, const prometheus::Collectable& metrics,
      const DrainState& drain);
  ~HttpServer();

  int port() const { return port_; }

 private:
  HttpServer() = default;

  std::vector<std::unique_ptr<CivetHandler>> handlers_;
  std::unique_ptr<CivetServer> server_;  // stops before its handlers go
  int port_ = 0;
  ListenAddress address_;
};

}  // namespace mmud

#endif  // SERVER_HTTP_SERVER_H_
