// The gRPC server: all services, health, reflection, limits.

#ifndef SERVER_GRPC_SERVER_H_
#define SERVER_GRPC_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/service_type.h"
#include "server/config/listen_address.h"
#include "server/connection_acceptor.h"
#include "server/metrics/rpc_metrics.h"
#include "server/self_probe.h"
#include "server/services/daemon_state.h"
#include "server/serving_status.h"

namespace mmud {

// Full names of the served services, with the debug service if it is enabled.
std::vector<std::string> ServiceNames(const Config& config);

// Serves from Start to Shutdown. Thread-safe.
class GrpcServer {
 public:
  // Listens on the addresses in state.config. `state` and `metrics` outlive
  // this. INVALID_ARGUMENT, FAILED_PRECONDITION, UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(DaemonState& state,
                                                           RpcMetrics& metrics);
  ~GrpcServer();

  // The TCP port; 0 without one.
  int port() const { return port_; }

  // From now on health answers NOT_SERVING for every service.
  void BeginDrain();
  // Ends all calls; running calls may go on for `timeout`.
  void Shutdown(absl::Duration timeout);

 private:
  explicit GrpcServer(DaemonState& state) : state_(state) {}

  absl::Status Listen(grpc::ServerBuilder* builder);
  // Sets the problem that the probe of the listeners found; "" if they answer.
  void SetListeners(const std::string& wrong);

  DaemonState& state_;
  UnixSocketPath unix_path_;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<ServingStatus> serving_;
  std::vector<ConnectionAcceptor::Listener> listeners_;  // until they serve
  std::vector<std::string> targets_;  // as clients name the listeners
  // Stop in this order, before the server.
  std::unique_ptr<ConnectionAcceptor> acceptor_;
  std::unique_ptr<SelfProbe> probe_;
  int port_ = 0;
};

}  // namespace mmud

#endif  // SERVER_GRPC_SERVER_H_
