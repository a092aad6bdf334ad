#include "server/daemon.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"
#include "server/base/build_info.h"
#include "server/base/errors.h"
#include "server/config/config.h"
#include "server/config/config_loader.h"
#include "server/config/config_options.h"
#include "server/control/housekeeping.h"
#include "server/control/operation.h"
#include "server/daemon_collector.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/log/logging.h"
#include "server/metrics/rpc_metrics.h"
#include "server/services/daemon_state.h"
#include "server/signals.h"

namespace mmud {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);
// Time for the last statuses to reach their callers.
constexpr absl::Duration kGoodbye = absl::Milliseconds(100);

// In lines of 80 columns, like the flags below it; "mmud: " is printed before
// it.
constexpr char kUsage[] =
    "Owns the second-stage page tables of virtual machines and serves them\n"
    "over gRPC.\n\n"
    "  mmud --listen=unix:/run/mmud.sock --metrics-address=127.0.0.1:9464\n"
    "  mmud --listen-tcp=127.0.0.1:0 --port-file=/tmp/mmud.ports\n\n"
    "SIGTERM and SIGINT drain: new work is refused, guests stop, operations\n"
    "stop at their next safe point, streams and running calls end, the exit\n"
    "code is 0. A second signal ends the daemon at once. SIGHUP reads the "
    "files\n"
    "anew that may change while the daemon runs; another configuration needs "
    "a\n"
    "new start. SIGINT and SIGHUP stay ignored if they are when it starts\n"
    "(nohup). In names of flags '-' and '_' are the same.";

// Flags that may be given without a value. They are OptionFlags, and Abseil
// allows only a plain bool without a value.
constexpr const char* kSwitches[] = {"--allow_nx_huge_pages_opt_out",
                                     "--allow_remote_plaintext",
                                     "--enable_debug_service"};

// "--max-vms=3" becomes "--max_vms=3", the only form that Abseil accepts.
std::vector<std::string> WithUnderscores(int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + argc);
  for (std::string& argument : arguments) {
    if (argument.size() < 3 || argument.compare(0, 2, "--") != 0) continue;
    const size_t end = std::min(argument.find('='), argument.size());
    std::replace(argument.begin() + 2,
                 argument.begin() + static_cast<std::ptrdiff_t>(end), '-', '_');
    for (const char* name : kSwitches) {
      if (argument == name) argument += "=true";
    }
  }
  return arguments;
}

int Fail(int code, const absl::Status& status) {
  std::fprintf(stderr, "mmud: %s\n", std::string(status.message()).c_str());
  return code;
}

// The file is written under another name and then renamed, so that a reader
// never sees a part of it.
absl::Status WritePorts(const std::string& path, int grpc_port,
                        int metrics_port) {
  const std::string part = path + ".part";
  {
    std::ofstream file(part, std::ios::trunc);
    if (grpc_port != 0) file << "grpc=" << grpc_port << "\n";
    if (metrics_port != 0) file << "metrics=" << metrics_port << "\n";
    if (!file.flush()) {
      return absl::UnavailableError(
          absl::StrCat("cannot write --port_file ", Quote(path)));
    }
  }
  if (std::rename(part.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot write --port_file ", Quote(path)));
}

void Drain(DaemonState& state, const RpcMetrics& rpcs, GrpcServer& server) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const mmu::MonotonicTime deadline = start + state.config.drain_timeout;
  const mmu::MonotonicTime earliest =
      std::min(start + state.config.min_drain, deadline);
  state.drain.Begin();
  server.BeginDrain();
  // Includes streams whose peers do not read: they would take the whole time.
  state.calls.open_streams.EndAll(DrainingError());
  state.workloads.StopAll();
  for (const OperationView& operation :
       state.operations.Drain(deadline - mmu::MonotonicTime::Now())) {
    Log(LogLevel::kInfo, "operation parked",
        {{"name", operation.name},
         {"done", operation.done ? "true" : "false"}});
  }
  // Shutdown would also wait for idle connections, which a client closes only
  // when it next uses them.
  while (mmu::MonotonicTime::Now() < earliest ||
         (rpcs.calls_in_hand() > 0 && mmu::MonotonicTime::Now() < deadline)) {
    absl::SleepFor(kPoll);
  }
  server.Shutdown(kGoodbye);
}

// Logs each option's value, whether it was given or is a default.
void LogConfiguration(const Config& config) {
  LogFields fields = {{"version", kVersion}};
  for (const ConfigOption& option : ConfigOptions()) {
    fields.emplace_back(option.name, ShowOption(option, config));
  }
  Log(LogLevel::kInfo, "configuration", fields);
}

int Serve(const Config& config, BuildVariant variant) {
  // Without the thread that this makes, the daemon cannot run. A later failure
  // would end a daemon that has guests.
  mmu::RcuRegisterThread();
  mmu::TablePool::Process().SetMaxTables(
      static_cast<uint64_t>(config.max_page_tables));
  DaemonState state(config, variant);
  RpcMetrics rpcs(ServiceNames(config));
  const DaemonCollector collector(state, rpcs);
  absl::StatusOr<std::unique_ptr<GrpcServer>> server =
      GrpcServer::Start(state, rpcs);
  if (!server.ok()) return Fail(1, server.status());
  std::unique_ptr<HttpServer> http;
  if (!config.metrics_address.empty()) {
    absl::StatusOr<std::unique_ptr<HttpServer>> started =
        HttpServer::Start(config.metrics_address, collector,
                          [&state] { return state.readiness.Why(); });
    if (!started.ok()) return Fail(1, started.status());
    http = *std::move(started);
  }
  const int metrics_port = http == nullptr ? 0 : http->port();
  if (!config.port_file.empty()) {
    absl::Status status =
        WritePorts(config.port_file, (*server)->port(), metrics_port);
    if (!status.ok()) return Fail(1, status);
  }
  LogFields fields = {{"version", kVersion}};
  if (!config.listen.empty()) fields.emplace_back("listen", config.listen);
  if ((*server)->port() != 0) {
    fields.emplace_back("grpc_port", absl::StrCat((*server)->port()));
  }
  if (metrics_port != 0) {
    fields.emplace_back("metrics_port", absl::StrCat(metrics_port));
  }
  // If the daemon cannot listen, it logs only that.
  LogConfiguration(config);
  Log(LogLevel::kInfo, "serving", fields);
  {
    const Housekeeping housekeeping(state.vms, state.abandoned_logs);
    SignalRequest signal = WaitForSignal();
    for (; signal.reload; signal = WaitForSignal()) {
      Log(LogLevel::kInfo, "reloading", {{"signal", signal.name}});
      state.reload_actions.Run();
    }
    Log(LogLevel::kInfo, "draining", {{"signal", signal.name}});
    ExitOnNextSignal();
    Drain(state, rpcs, **server);
  }
  server->reset();
  http.reset();
  state.log.ReportDropped();
  Log(LogLevel::kInfo, "stopped",
      {{"uptime",
        absl::FormatDuration(absl::Trunc(
            mmu::MonotonicTime::Now() - state.begin, absl::Milliseconds(1)))}});
  return 0;
}

}  // namespace

int RunDaemon(int argc, char** argv, const DaemonVariant& variant) {
  BlockSignals();
  absl::SetProgramUsageMessage(kUsage);
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](absl::string_view file) {
    return absl::StrContains(file, "server/");
  };
  usage.contains_helpshort_flags = usage.contains_help_flags;
  usage.version_string = [] { return absl::StrCat("mmud ", kVersion, "\n"); };
  absl::SetFlagsUsageConfig(usage);
  std::vector<std::string> arguments = WithUnderscores(argc, argv);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const std::vector<char*> rest = absl::ParseCommandLine(
      static_cast<int>(pointers.size()), pointers.data());
  if (rest.size() > 1) {
    return Fail(2, absl::InvalidArgumentError(
                       absl::StrCat("unknown argument ", Quote(rest[1]),
                                    "; see --help for the flags")));
  }
  const absl::StatusOr<Config> config = LoadConfig();
  if (!config.ok()) return Fail(2, config.status());
  ConfigureLogging(config->log_format, config->log_level);
  if (variant.arm != nullptr) {
    if (absl::Status status = variant.arm(); !status.ok()) {
      return Fail(2, status);
    }
  }
  return Serve(*config, variant.build);
}

}  // namespace mmud
