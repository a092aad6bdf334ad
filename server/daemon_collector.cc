#include "server/daemon_collector.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/vm/vm.h"
#include "prometheus/metric_family.h"
#include "server/base/budget.h"
#include "server/base/build_info.h"
#include "server/base/status_codes.h"
#include "server/base/wall_time.h"
#include "server/control/aging_thread.h"
#include "server/control/managed_vm.h"
#include "server/control/operation_metrics.h"
#include "server/control/reload_actions.h"
#include "server/control/vm_registry.h"
#include "server/control/working_set_sizes.h"
#include "server/control/workload_run.h"
#include "server/control/workload_store.h"
#include "server/log/logging.h"
#include "server/metrics/metric_writer.h"
#include "server/metrics/process_metrics.h"

namespace mmud {
namespace {

double UnixSeconds(WallTime time) {
  return static_cast<double>(time.unix_nanos() / 1'000) * 1e-6;
}

void WriteDaemon(const DaemonState& state, MetricWriter* w) {
  w->Gauge("build_info", "Always 1; the labels describe the build.");
  w->Add(1, {{"version", kVersion},
             {"compiler", CompilerName()},
             {"mode", BuildMode()}});
  w->Gauge("start_timestamp_seconds", "Time at which the process started.");
  w->Add(UnixSeconds(state.start_time));
  const bool draining = state.drain.is_draining();
  w->Gauge("ready", "1 while the daemon accepts new work.");
  w->Add(state.readiness.Why().empty() ? 1 : 0);
  w->Gauge("draining", "1 while the daemon is shutting down.");
  w->Add(draining ? 1 : 0);
  w->Counter("reloads_total",
             "Times that files were read anew on request, by result.");
  const ReloadActions::Counts reloads = state.reload_actions.counts();
  for (int i = 0; i < kReloadResults; ++i) {
    w->Add(static_cast<double>(reloads[i]),
           {{"result", ReloadResultName(static_cast<ReloadResult>(i))}});
  }
  w->Counter("log_messages_total", "Lines that were logged.");
  const std::array<uint64_t, kLogLevels> counts = LogMessageCounts();
  for (int i = 0; i < kLogLevels; ++i) {
    w->Add(static_cast<double>(counts[i]),
           {{"level", LogLevelName(static_cast<LogLevel>(i))}});
  }
  w->Counter("log_messages_dropped_total",
             "Log lines about clients that were dropped by the rate limit.");
  w->Add(static_cast<double>(state.log.dropped()));
}

void WriteOperations(const OperationMetrics& operations, MetricWriter* w) {
  w->Counter("operations_total", "Operations that ended, by code.");
  for (int i = 0; i < kOperationMethods; ++i) {
    for (int code = 0; code < kStatusCodes; ++code) {
      const auto count = static_cast<double>(operations[i].finished[code]);
      MetricLabels labels = {
          {"method", ToString(static_cast<OperationMethod>(i))},
          {"code", StatusCodeName(code)}};
      if (code == 0) {
        w->Add(count, std::move(labels));
      } else {
        w->AddIfCounted(count, std::move(labels));
      }
    }
  }
  w->Gauge("operations_running", "Operations that run.");
  for (int i = 0; i < kOperationMethods; ++i) {
    w->Add(static_cast<double>(operations[i].running),
           {{"method", ToString(static_cast<OperationMethod>(i))}});
  }
  w->Histogram("operation_seconds",
               "Time from an operation's start to its end.");
  for (int i = 0; i < kOperationMethods; ++i) {
    w->Add(operations[i].duration,
           {{"method", ToString(static_cast<OperationMethod>(i))}},
           Buckets::kWork);
  }
}

void WriteWorkloads(const WorkloadMetrics& workloads, MetricWriter* w) {
  w->Gauge("workloads_running", "Workloads that run.");
  w->Add(static_cast<double>(workloads.running));
  w->Counter("workloads_ended_total", "Workloads that ended, by how.");
  for (const auto& [state, count] :
       {std::pair(WorkloadRun::State::kCompleted, workloads.completed),
        std::pair(WorkloadRun::State::kStopped, workloads.stopped),
        std::pair(WorkloadRun::State::kFailed, workloads.failed)}) {
    w->Add(static_cast<double>(count), {{"state", ToString(state)}});
  }
}

// Writes the limit of each kind of call; api.md names the kinds.
void WriteLimits(const std::vector<BudgetUse>& uses, MetricWriter* w) {
  w->Gauge("limit", "The most there may be at a time, by limit; 0: no limit.");
  for (const BudgetUse& use : uses) {
    w->Add(static_cast<double>(use.limit), {{"limit", use.name}});
  }
  w->Gauge("limit_used", "How much of a limit is in use.");
  for (const BudgetUse& use : uses) {
    w->Add(static_cast<double>(use.used), {{"limit", use.name}});
  }
  w->Counter("limit_exceeded_total", "Calls refused with LIMIT_EXCEEDED.");
  for (const BudgetUse& use : uses) {
    w->Add(static_cast<double>(use.refused), {{"limit", use.name}});
  }
}

// Window and bytes of the VM's working set.
std::vector<std::pair<std::string, uint64_t>> WorkingSetOf(
    const ManagedVm& vm) {
  std::vector<std::pair<std::string, uint64_t>> sizes;
  const absl::optional<WorkingSetBytes> bytes =
      vm.working_set_sizes().Get(vm.vm().FindWorkingSet());
  if (!bytes.has_value()) return sizes;
  for (size_t i = 0; i < bytes->size(); ++i) {
    sizes.emplace_back(kWorkingSetWindows[i].label, (*bytes)[i]);
  }
  return sizes;
}

void AddLog(const mmu::DirtyLogState& log, MmuTotals* totals) {
  ++totals->logging_vms;
  if (log.lease_end <= mmu::MonotonicTime::Now()) ++totals->expired_leases;
  totals->epochs_in_flight += log.epochs_in_flight.size();
  for (const mmu::SlotLogState& slot : log.slots) {
    totals->sealed_pages += slot.sealed_page_count;
    totals->in_flight_pages += slot.in_flight_page_count;
  }
}

}  // namespace

std::vector<prometheus::MetricFamily> DaemonCollector::Collect() const {
  MetricWriter writer;
  WriteDaemon(state_, &writer);
  WriteLimits(state_.Limits(), &writer);
  MmuTotals totals = GatherMmu();
  const OperationStore::SplitSummary splits = state_.operations.Splits();
  totals.splits_running = splits.running;
  totals.split_remaining_bytes = splits.remaining_bytes;
  totals.abandoned_logs = state_.abandoned_logs.logs();
  totals.abandoned_pages = state_.abandoned_logs.discarded_pages();
  const AgerTotals agers = state_.aging.totals();
  totals.ager_generations = agers.generations;
  totals.ager_failures = agers.failures;
  totals.ager_cpu_seconds = absl::ToDoubleSeconds(agers.cpu_time);
  WriteMmuMetrics(totals, &writer);
  WriteWorkloads(state_.workloads.Metrics(), &writer);
  WriteOperations(state_.operations.Metrics(), &writer);
  rpcs_.Write(&writer);
  WriteProcessMetrics(&writer);
  return writer.Take();
}

MmuTotals DaemonCollector::GatherMmu() const {
  MmuTotals totals;
  const VmRegistry::Scrape scrape = state_.vms.ForScrape();
  totals.stats = scrape.gone.stats;
  totals.other_dirty_pages = scrape.gone.unlabelled_dirty_pages;
  totals.process = mmu::Vm::ProcessStats();
  mmu::MonotonicTime oldest = mmu::MonotonicTime::InfiniteFuture();
  for (const VmUse& vm : scrape.vms) {
    const mmu::VmStatsSnapshot stats = vm->vm().Stats();
    mmu::AddUp(stats, &totals.stats);
    ++totals.vms;
    totals.vcpus += vm->vm().config().vcpu_count;
    if (vm->vm().vcpus_paused()) {
      totals.paused_vcpus += vm->vm().config().vcpu_count;
    }
    totals.agers += vm->ager().state().settings.enabled ? 1 : 0;
    if (const absl::optional<mmu::DirtyLogView> log = vm->vm().FindDirtyLog()) {
      AddLog(log->state, &totals);
      oldest = std::min(oldest, log->state.undelivered_since);
    }
    if (vm->metrics_label() == ManagedVm::MetricsLabel::kOwn) {
      totals.vm_series.push_back({vm->name(), stats, WorkingSetOf(*vm)});
    } else {
      totals.other_dirty_pages =
          totals.other_dirty_pages.value_or(0) + stats.vcpus.dirty_pages;
    }
  }
  if (oldest < mmu::MonotonicTime::InfiniteFuture()) {
    totals.oldest_undelivered_seconds = UnixSeconds(WallTime::Of(oldest));
  }
  return totals;
}

}  // namespace mmud
