// The state that all adapters share.

#ifndef SERVER_SERVICES_DAEMON_STATE_H_
#define SERVER_SERVICES_DAEMON_STATE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "mmu_core/base/check.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/request_id_cache.h"
#include "server/base/uuid.h"
#include "server/base/wall_time.h"
#include "server/config/config.h"
#include "server/config/host_cpu.h"
#include "server/control/abandoned_logs.h"
#include "server/control/aging_thread.h"
#include "server/control/drain_state.h"
#include "server/control/operation_store.h"
#include "server/control/pause_keeper.h"
#include "server/control/readiness.h"
#include "server/control/reload_actions.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_store.h"
#include "server/log/call_log.h"
#include "server/log/limited_log.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/open_connections.h"

namespace mmud {

// Whether faults can be injected (test builds only).
enum class BuildVariant : uint8_t { kRelease, kFaultInjection };

// The members are thread-safe; `config`, `variant`, `start_time` and `boot_id`
// are const. Outlives every call.
struct DaemonState {
  explicit DaemonState(const Config& c, BuildVariant v = BuildVariant::kRelease)
      : config(c), variant(v) {
    // The values in config are valid.
    MMU_CHECK(nx_parameters.SetNxHugePages(config.nx_huge_pages).ok());
    nx_parameters.SetRecovery(
        {.ratio = static_cast<uint32_t>(config.nx_huge_pages_recovery_ratio),
         .period = config.nx_huge_pages_recovery_period});
  }

  const Config config;
  const BuildVariant variant;
  const WallTime start_time = WallTime::Now();
  const mmu::MonotonicTime begin = mmu::MonotonicTime::Now();
  const std::string boot_id = NewUuid();
  DrainState drain;
  Readiness readiness{drain};
  ReloadActions reload_actions;
  OpenConnections connections;
  mmu::NxParameters nx_parameters{ReadItlbMultihit()};
  RequestIdCache request_ids;
  LimitedLog log;
  CallLog call_log{log};
  AbandonedLogs abandoned_logs;
  CallRuntime calls{{.max_rpc_threads = config.max_rpc_threads,
                     .max_short_calls = config.max_short_calls,
                     .max_long_calls = config.max_long_calls,
                     .max_long_calls_per_vm = config.max_long_calls_per_vm,
                     .max_streams = config.max_streams,
                     .max_streams_per_vm = config.max_streams_per_vm,
                     .max_waits = config.max_waits,
                     .max_reflections = config.max_reflections}};
  // The destructor waits for deletions, which end streams and answer requests.
  VmRegistry vms{{.max_vms = config.max_vms,
                  .max_guest_memory_bytes = config.max_guest_memory_bytes,
                  .max_labelled_vms = config.metrics_max_vms},
                 nx_parameters,
                 [this](absl::string_view vm) {
                   calls.open_streams.EndOf(vm, VmDeleted(vm));
                 }};
  PauseKeeper pauses{vms, log};
  AgingThread aging{vms};
  // Declared last, so that workloads and operations end before the members they
  // use.
  WorkloadStore workloads{vms, drain, log};
  OperationStore operations{
      {.max_running = config.max_operations, .max_done = 1000}, drain, log};

  // All limits and their use, for GetCapabilities and the metrics.
  std::vector<BudgetUse> Limits() {
    std::vector<BudgetUse> uses = vms.Uses();
    const mmu::TablePool::Use tables = mmu::TablePool::Process().Snapshot();
    // This limit refuses no call: a guest that finds no table stops.
    uses.push_back(
        {.name = "max_page_tables",
         .limit = static_cast<int64_t>(tables.max_tables),
         .used = static_cast<int64_t>(tables.in_use + tables.in_grace_period)});
    for (BudgetUse& use : calls.Uses()) uses.push_back(std::move(use));
    uses.push_back(operations.Use());
    uses.push_back(connections.Use());
    return uses;
  }
};

}  // namespace mmud

#endif  // SERVER_SERVICES_DAEMON_STATE_H_
