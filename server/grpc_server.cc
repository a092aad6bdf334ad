#include "server/grpc_server.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "grpc/support/time.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_posix.h"
#include "server/config/listen_address.h"
#include "server/connection_acceptor.h"
#include "server/log/call_log.h"
#include "server/log/logging.h"
#include "server/metrics/rpc_metrics.h"
#include "server/rpc/open_connections.h"
#include "server/rpc/reflection_service.h"
#include "server/self_probe.h"
#include "server/services/admin_service.h"
#include "server/services/aging_service.h"
#include "server/services/debug_service.h"
#include "server/services/dirty_log_service.h"
#include "server/services/guest_memory_service.h"
#include "server/services/operations_service.h"
#include "server/services/split_service.h"
#include "server/services/stats_service.h"
#include "server/services/vm_service.h"
#include "server/services/workload_service.h"

namespace mmud {
namespace {

// The largest request is a clear of a whole slot, with one bit per page: 64 MiB
// cover 2 TiB of guest memory.
constexpr int kMaxReceiveBytes = 64 << 20;
constexpr int kMaxSendBytes = 64 << 20;
// Memory for messages in flight.
constexpr size_t kQuotaBytes = size_t{512} << 20;
constexpr int kKeepaliveMs = 30'000;
// Calls of one connection at a time; its client keeps further calls until one
// ends. This is more than one client can sensibly need, but few enough that a
// connection that is not read cannot use up max_short_calls by itself.
constexpr int kMaxCallsOfConnection = 1024;

void SetLimits(grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("mmud");
  quota.Resize(kQuotaBytes);
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->SetMaxSendMessageSize(kMaxSendBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              kMaxCallsOfConnection);
  // Detects clients that vanished, and tolerates clients that ping often.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
}

absl::StatusOr<ListenAddress> CheckTcp(const Config& config) {
  absl::StatusOr<ListenAddress> address =
      ParseListenAddress("listen_tcp", config.listen_tcp);
  if (!address.ok()) return address.status();
  if (!address->is_loopback && !config.allow_remote_plaintext) {
    return absl::InvalidArgumentError(absl::StrCat(
        "listen_tcp is ", config.listen_tcp,
        ", which other machines can reach, and the connection is plain text: "
        "every client that connects controls every VM. Use a loopback address, "
        "or give "
        "--allow_remote_plaintext if the network is trusted"));
  }
  return address;
}

}  // namespace

std::vector<std::string> ServiceNames(const Config& config) {
  std::vector<std::string> names = {"mmud.v1.VmService",
                                    "mmud.lab.v1.WorkloadService",
                                    "mmud.v1.DirtyLogService",
                                    "mmud.v1.GuestMemoryService",
                                    "mmud.v1.SplitService",
                                    "mmud.v1.AgingService",
                                    "mmud.v1.StatsService",
                                    "mmud.v1.AdminService",
                                    "google.longrunning.Operations"};
  if (config.enable_debug_service) names.push_back("mmud.v1.DebugService");
  return names;
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    DaemonState& state, RpcMetrics& metrics) {
  const Config& config = state.config;
  // Never undone: gRPC's own shutdown can wait 10 s for its pollers, and the
  // process's end frees everything anyway.
  grpc_init();
  auto server = absl::WrapUnique(new GrpcServer(state));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  SetLimits(&builder);
  if (absl::Status status = server->Listen(&builder); !status.ok()) {
    return status;
  }
  const auto add = [&](std::unique_ptr<grpc::Service> service) {
    builder.RegisterService(service.get());
    server->services_.push_back(std::move(service));
  };
  add(std::make_unique<VmServiceImpl>(state));
  add(std::make_unique<WorkloadServiceImpl>(state));
  add(std::make_unique<DirtyLogServiceImpl>(state));
  add(std::make_unique<GuestMemoryServiceImpl>(state));
  add(std::make_unique<SplitServiceImpl>(state));
  add(std::make_unique<AgingServiceImpl>(state));
  add(std::make_unique<StatsServiceImpl>(state));
  add(std::make_unique<AdminServiceImpl>(state));
  add(std::make_unique<OperationsServiceImpl>(state));
  // Registered even if it is disabled, so that its refusal carries a reason.
  add(std::make_unique<DebugServiceImpl>(state));
  std::vector<std::string> names = ServiceNames(config);
  names.insert(names.end(), {"grpc.health.v1.Health",
                             "grpc.reflection.v1alpha.ServerReflection"});
  add(std::make_unique<ReflectionService>(std::move(names), state.calls));
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(MakeRpcMetricsFactory(metrics));
  interceptors.push_back(MakeCallLogFactory(state.call_log));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));

  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return absl::UnavailableError("gRPC does not start; see the lines above");
  }
  auto* health = server->server_->GetHealthCheckService();
  health->SetServingStatus(true);
  for (const std::string& name : ServiceNames(config)) {
    health->SetServingStatus(name, true);
  }
  server->serving_ = std::make_unique<ServingStatus>(
      [health](bool serving) { health->SetServingStatus(serving); });
  // A quarter of the remaining descriptors is kept for guest memory, traces,
  // /metrics and the probe.
  const int64_t left = RaiseDescriptorLimit() - CountDescriptors();
  state.connections.SetLimit(std::min(config.max_connections, left * 3 / 4));
  server->acceptor_ = std::make_unique<ConnectionAcceptor>(
      std::move(server->listeners_), state.connections, state.log);
  server->probe_ = std::make_unique<SelfProbe>(
      server->targets_,
      [raw = server.get()](const std::string& wrong) {
        raw->SetListeners(wrong);
      },
      SelfProbe::Settings());
  return server;
}

absl::Status GrpcServer::Listen(grpc::ServerBuilder* builder) {
  const Config& config = state_.config;
  const auto add = [&](int fd, std::string target) {
    // A shared_ptr, because a std::function must be copyable.
    std::shared_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor =
        builder->experimental().AddExternalConnectionAcceptor(
            grpc::ServerBuilder::experimental_type::ExternalConnectionType::
                FROM_FD,
            grpc::InsecureServerCredentials());
    listeners_.push_back({fd, [acceptor](int listen_fd, int connection_fd) {
                            grpc::experimental::ExternalConnectionAcceptor::
                                NewConnectionParameters parameters;
                            parameters.listener_fd = listen_fd;
                            parameters.fd = connection_fd;
                            acceptor->HandleNewConnection(&parameters);
                          }});
    targets_.push_back(std::move(target));
  };
  if (!config.listen_tcp.empty()) {
    absl::StatusOr<ListenAddress> address = CheckTcp(config);
    if (!address.ok()) return address.status();
    const absl::StatusOr<int> fd = ListenOnTcp("listen_tcp", &*address);
    if (!fd.ok()) return fd.status();
    port_ = address->port;
    add(*fd,
        absl::StrCat(address->is_v6 ? "ipv6:" : "ipv4:", address->ToString()));
  }
  const std::string path(absl::StripPrefix(config.listen, "unix:"));
  if (!path.empty()) {
    if (absl::Status status = unix_path_.Claim(path); !status.ok()) {
      return status;
    }
    const absl::StatusOr<int> fd = ListenOnUnix(path);
    if (!fd.ok()) return fd.status();
    // The peer of a call is then "fd:N", so that the kernel can tell who
    // connected (server/log/peer.h). With an external acceptor it would be
    // "unix:" for every caller.
    listeners_.push_back({*fd, [this](int, int connection_fd) {
                            grpc::AddInsecureChannelFromFd(server_.get(),
                                                           connection_fd);
                          }});
    targets_.push_back(config.listen);
  }
  return absl::OkStatus();
}

void GrpcServer::SetListeners(const std::string& wrong) {
  state_.readiness.SetListeners(wrong);
  if (!serving_->SetListeners(wrong)) return;
  if (wrong.empty()) {
    Log(LogLevel::kInfo, "the listeners answer again");
  } else {
    Log(LogLevel::kWarning, "not ready", {{"why", wrong}});
  }
}

GrpcServer::~GrpcServer() {
  if (server_ != nullptr) Shutdown(absl::ZeroDuration());
  for (const ConnectionAcceptor::Listener& listener : listeners_) {
    close(listener.fd);
  }
}

void GrpcServer::BeginDrain() { serving_->BeginDrain(); }

void GrpcServer::Shutdown(absl::Duration timeout) {
  probe_.reset();
  acceptor_.reset();
  server_->Shutdown(gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_nanos(absl::ToInt64Nanoseconds(timeout), GPR_TIMESPAN)));
  server_->Wait();
}

}  // namespace mmud
