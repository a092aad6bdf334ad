#include "server/grpc_server.h"

#include <sys/stat.h>

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
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "server/listen_address.h"
#include "server/metrics/rpc_metrics.h"
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

// A clear of a whole slot sends one bit per page: 64 MiB is 2 TiB of guest.
constexpr int kMaxReceiveBytes = 64 << 20;
constexpr int kMaxSendBytes = 64 << 20;
// Memory for messages in flight.
constexpr size_t kQuotaBytes = size_t{512} << 20;
constexpr int kKeepaliveMs = 30'000;

void SetLimits(grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("mmud");
  quota.Resize(kQuotaBytes);
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->SetMaxSendMessageSize(kMaxSendBytes);
  // For reflection only: all else is served by callbacks (server/rpc).
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  // A thread that waits for calls notices the end of the server this soon.
  builder->SetSyncServerOption(grpc::ServerBuilder::CQ_TIMEOUT_MSEC, 200);
  // Otherwise a second daemon would silently share the port.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A client that vanished is noticed, and one that asks often is served.
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
        "whoever connects controls every VM. Use a loopback address, or give "
        "--allow_remote_plaintext if the network is trusted"));
  }
  if (absl::Status status = ProbeTcp("listen_tcp", *address); !status.ok()) {
    return status;
  }
  return address;
}

}  // namespace

std::vector<std::string> ServiceNames(const Config& config) {
  std::vector<std::string> names = {"mmud.v1.VmService",
                                    "mmud.v1.WorkloadService",
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
  // Never undone: gRPC's own shutdown can wait 10 s for its pollers, and all
  // that it would free goes with the process.
  grpc_init();
  auto server = absl::WrapUnique(new GrpcServer());
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(&builder);
  if (!config.listen_tcp.empty()) {
    absl::StatusOr<ListenAddress> address = CheckTcp(config);
    if (!address.ok()) return address.status();
    builder.AddListeningPort(address->ToString(),
                             grpc::InsecureServerCredentials(), &server->port_);
  }
  const std::string path(absl::StripPrefix(config.listen, "unix:"));
  if (!path.empty()) {
    if (absl::Status status = server->unix_path_.Claim(path); !status.ok()) {
      return status;
    }
    builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials());
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
  // Registered in any case, so that its refusal carries a reason.
  add(std::make_unique<DebugServiceImpl>(state));
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(MakeRpcMetricsFactory(metrics));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));

  // The socket file has mode 0660 from its first moment on.
  const mode_t before = umask(0117);
  server->server_ = builder.BuildAndStart();
  umask(before);
  if (server->server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", config.listen,
        config.listen.empty() || config.listen_tcp.empty() ? "" : " and ",
        config.listen_tcp, "; see the lines above"));
  }
  auto* health = server->server_->GetHealthCheckService();
  health->SetServingStatus(true);
  for (const std::string& name : ServiceNames(config)) {
    health->SetServingStatus(name, true);
  }
  return server;
}

GrpcServer::~GrpcServer() {
  if (server_ != nullptr) Shutdown(absl::ZeroDuration());
}

void GrpcServer::SetNotServing() {
  server_->GetHealthCheckService()->SetServingStatus(false);
}

void GrpcServer::Shutdown(absl::Duration timeout) {
  server_->Shutdown(gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_nanos(absl::ToInt64Nanoseconds(timeout), GPR_TIMESPAN)));
  server_->Wait();
}

}  // namespace mmud
