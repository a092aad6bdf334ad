#include "server/metrics/mmu_metrics_writer.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_stats.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

using mmu::CounterIndex;
using mmu::CounterKind;
using mmu::CounterMetric;
using mmu::CounterRow;
using mmu::CounterUnit;
using mmu::ProcessStatsSnapshot;
using mmu::VcpuStatsSnapshot;
using mmu::VmStatsSnapshot;

double ToDouble(uint64_t value) { return static_cast<double>(value); }

// /metrics uses base units.
double InUnits(uint64_t value, CounterUnit unit) {
  return unit == CounterUnit::kNanoseconds ? ToDouble(value) * 1e-9
                                           : ToDouble(value);
}

// Writes a counter of the table as the metrics that its row names.
template <typename Snapshot>
class RowWriter {
 public:
  RowWriter(const CounterRow<Snapshot>& row, MetricWriter* writer)
      : row_(row), w_(writer) {}

  // Writes the total of all VMs, or the number of the process.
  void Write(const Snapshot& all) {
    if (row_.metric.family.empty()) return;
    Begin(row_.metric);
    AddSeries(row_.metric, all, {});
  }

  // Writes a series for each VM that has series of its own. `of` takes the
  // counters from a VM's snapshot.
  template <typename Of>
  void WriteVms(const MmuTotals& totals, const Of& of) {
    if (row_.vm_metric.family.empty()) return;
    Begin(row_.vm_metric);
    for (const VmSeries& series : totals.vm_series) {
      AddSeries(row_.vm_metric, of(series.stats), {{"vm", series.vm}});
    }
  }

 private:
  void Begin(const CounterMetric& metric) {
    const std::string family(metric.family);
    const std::string help(metric.help);
    if (row_.histogram != nullptr) {
      w_->Histogram(family, help);
    } else if (row_.kind == CounterKind::kCumulative) {
      w_->Counter(family, help);
    } else {
      w_->Gauge(family, help);
    }
  }

  void AddSeries(const CounterMetric& metric, const Snapshot& snapshot,
                 const MetricLabels& first_labels) {
    row_.ForEach([&](const CounterIndex& index) {
      MetricLabels labels = first_labels;
      for (int i = 0; i < mmu::kMaxCounterLabels; ++i) {
        const mmu::CounterLabel* const label = row_.labels[i];
        if (label == nullptr) break;
        labels.emplace_back(label->name, label->value(index[i]));
      }
      if (row_.histogram != nullptr) {
        w_->Add(row_.histogram(snapshot, index), std::move(labels),
                metric.reach == mmu::HistogramReach::kWork ? Buckets::kWork
                                                           : Buckets::kStep);
        return;
      }
      const double value = InUnits(row_.value(snapshot, index), row_.unit);
      if (metric.series_from == mmu::SeriesFrom::kFirstEvent) {
        w_->AddIfCounted(value, std::move(labels));
      } else {
        w_->Add(value, std::move(labels));
      }
    });
  }

  const CounterRow<Snapshot>& row_;
  MetricWriter* const w_;
};

void WriteCounters(const MmuTotals& totals, MetricWriter* w) {
  for (const mmu::VmCounterRow& row : mmu::VmCounterRows()) {
    RowWriter<VmStatsSnapshot> writer(row, w);
    writer.Write(totals.stats);
    writer.WriteVms(
        totals, [](const VmStatsSnapshot& vm) -> const auto& { return vm; });
  }
  for (const mmu::VcpuCounterRow& row : mmu::VcpuCounterRows()) {
    RowWriter<VcpuStatsSnapshot> writer(row, w);
    writer.Write(totals.stats.vcpus);
    writer.WriteVms(
        totals,
        [](const VmStatsSnapshot& vm) -> const auto& { return vm.vcpus; });
    // Only in this family do the VMs without series of their own share one
    // series.
    if (totals.other_dirty_pages.has_value() &&
        row.IsOf(&VcpuStatsSnapshot::dirty_pages)) {
      w->Add(ToDouble(*totals.other_dirty_pages), {{"vm", "_other"}});
    }
  }
  for (const mmu::ProcessCounterRow& row : mmu::ProcessCounterRows()) {
    RowWriter<ProcessStatsSnapshot>(row, w).Write(totals.process);
  }
}

void WriteSplits(const MmuTotals& totals, MetricWriter* w) {
  w->Gauge("split_remaining_bytes",
           "Bytes that running splits have still to process.");
  w->Add(static_cast<double>(totals.split_remaining_bytes));
  w->Gauge("split_operations_running", "Running splits.");
  w->Add(static_cast<double>(totals.splits_running));
}

void WriteDirty(const MmuTotals& totals, MetricWriter* w) {
  w->Gauge("dirty_log_enabled_vms", "VMs that log dirty pages.");
  w->Add(static_cast<double>(totals.logging_vms));
  w->Gauge("dirty_log_expired_leases",
           "VMs whose dirty log's owner has made no call for longer than its "
           "lease: any client may acquire the log.");
  w->Add(static_cast<double>(totals.expired_leases));
  w->Gauge("dirty_log_sealed_pages", "Pages that are sealed and not cleared.");
  w->Add(ToDouble(totals.sealed_pages));
  w->Gauge("dirty_log_in_flight_pages",
           "Pages that were cleared and not acknowledged.");
  w->Add(ToDouble(totals.in_flight_pages));
  w->Gauge("dirty_log_epochs_in_flight",
           "Epochs with pages in flight, at most four in each VM.");
  w->Add(ToDouble(totals.epochs_in_flight));
  w->Gauge("dirty_log_oldest_undelivered_timestamp_seconds",
           "Time of the oldest seal with pages that are still sealed or in "
           "flight; absent without one.");
  if (totals.oldest_undelivered_seconds.has_value()) {
    w->Add(*totals.oldest_undelivered_seconds);
  }
  w->Counter("dirty_logs_abandoned_total",
             "Dirty logs that ended because their owners made no call for "
             "longer than the log's ttl.");
  w->Add(ToDouble(totals.abandoned_logs));
  w->Counter("dirty_logs_abandoned_pages_total",
             "Pages lost when abandoned dirty logs ended: written and not "
             "acknowledged.");
  w->Add(ToDouble(totals.abandoned_pages));
}

void WriteWorkingSets(const MmuTotals& totals, MetricWriter* w) {
  w->Gauge("working_set_bytes",
           "Memory that was accessed in the window that ends with the newest "
           "generation, at most; absent before the first generation.");
  for (const VmSeries& series : totals.vm_series) {
    for (const auto& [window, bytes] : series.working_set) {
      w->Add(ToDouble(bytes), {{"vm", series.vm}, {"window", window}});
    }
  }
  w->Gauge("agers", "VMs whose ager is on.");
  w->Add(static_cast<double>(totals.agers));
  w->Counter("ager_generations_total", "Generations that agers made.");
  w->Add(ToDouble(totals.ager_generations));
  w->Counter("ager_failures_total",
             "Attempts of agers to make a generation that failed.");
  w->Add(ToDouble(totals.ager_failures));
  w->Counter("ager_cpu_seconds_total", "Time on a processor that agers used.");
  w->Add(totals.ager_cpu_seconds);
}

}  // namespace

void WriteMmuMetrics(const MmuTotals& totals, MetricWriter* writer) {
  writer->Gauge("vms", "Virtual machines.");
  writer->Add(static_cast<double>(totals.vms));
  writer->Gauge("vcpus", "vCPUs of all virtual machines.");
  writer->Add(static_cast<double>(totals.vcpus));
  writer->Gauge("vcpus_paused", "vCPUs of VMs that are paused.");
  writer->Add(static_cast<double>(totals.paused_vcpus));
  WriteCounters(totals, writer);
  WriteSplits(totals, writer);
  WriteDirty(totals, writer);
  WriteWorkingSets(totals, writer);
}

}  // namespace mmud
