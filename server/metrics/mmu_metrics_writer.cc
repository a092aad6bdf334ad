#include "server/metrics/mmu_metrics_writer.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/lock_metrics.h"
#include "mmu_core/tlb/flush_metrics.h"
#include "mmu_core/vm/inspect/vm_stats.h"
#include "server/metrics/metric_writer.h"
#include "server/metrics/retained_totals.h"

namespace mmud {
namespace {

// Values of the label `mmu`, by MmuLabel.
constexpr const char* kMmus[kMmuLabels] = {"tdp", "shadow"};

template <typename Enum>
std::string Label(int value) {
  return std::string(mmu::ToString(static_cast<Enum>(value)));
}

double ToDouble(uint64_t value) { return static_cast<double>(value); }
double Seconds(int64_t nanos) { return static_cast<double>(nanos) * 1e-9; }

MetricLabels ModeAndOp(int mode, int op) {
  return {{"mode", Label<mmu::LockMode>(mode)}, {"op", Label<mmu::LockOp>(op)}};
}

template <typename Fn>
void ForEachLock(const mmu::LockMetrics& lock, const Fn& fn) {
  for (int mode = 0; mode < mmu::kLockModes; ++mode) {
    for (int op = 0; op < mmu::kLockOps; ++op) {
      fn(lock.ops[mode][op], ModeAndOp(mode, op));
    }
  }
}

void WriteLocks(const mmu::MmuMetrics& metrics, MetricWriter* w) {
  const mmu::LockMetrics& lock = metrics.lock;
  w->Histogram("mmu_lock_wait_seconds",
               "Time that contended acquisitions of mmu_lock waited.");
  ForEachLock(lock, [w](const mmu::LockOpMetrics& m, MetricLabels labels) {
    w->Add(m.wait, std::move(labels));
  });
  w->Histogram("mmu_lock_hold_seconds",
               "Time for which mmu_lock was held; op=\"fault\" is sampled.");
  ForEachLock(lock, [w](const mmu::LockOpMetrics& m, MetricLabels labels) {
    w->Add(m.hold, std::move(labels));
  });
  w->Counter("mmu_lock_acquisitions_total", "Acquisitions of mmu_lock.");
  ForEachLock(lock, [w](const mmu::LockOpMetrics& m, MetricLabels labels) {
    w->Add(ToDouble(m.acquisitions), std::move(labels));
  });
  w->Counter("mmu_lock_contended_total",
             "Acquisitions of mmu_lock that had to wait.");
  ForEachLock(lock, [w](const mmu::LockOpMetrics& m, MetricLabels labels) {
    w->Add(ToDouble(m.contended), std::move(labels));
  });
  w->Counter(
      "mmu_lock_yields_total",
      "Times that mmu_lock was given to a waiter in the middle of work.");
  ForEachLock(lock, [w](const mmu::LockOpMetrics& m, MetricLabels labels) {
    w->Add(ToDouble(m.yields), std::move(labels));
  });
  w->Counter("rmap_lock_contended_total",
             "Acquisitions of the lock of a reverse map that had to wait.");
  w->Add(ToDouble(metrics.rmap_lock_contended));
}

void WriteByReason(const std::array<uint64_t, mmu::kFlushReasons>& counts,
                   MetricWriter* w) {
  for (int reason = 0; reason < mmu::kFlushReasons; ++reason) {
    w->Add(ToDouble(counts[reason]),
           {{"reason", Label<mmu::FlushReason>(reason)}});
  }
}

void WriteFlush(const MmuTotals& totals, MetricWriter* w) {
  w->Counter("tlb_flushes_total",
             "Remote TLB flushes. Here and elsewhere mmu=\"shadow\" are VMs "
             "that have shadow pages, whatever their TDP MMU does besides.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    for (int scope = 0; scope < mmu::kFlushScopes; ++scope) {
      for (int reason = 0; reason < mmu::kFlushReasons; ++reason) {
        w->AddIfCounted(ToDouble(totals.metrics_by_mmu[mmu].flush.Flushes(
                            static_cast<mmu::FlushScope>(scope),
                            static_cast<mmu::FlushReason>(reason))),
                        {{"scope", Label<mmu::FlushScope>(scope)},
                         {"reason", Label<mmu::FlushReason>(reason)},
                         {"mmu", kMmus[mmu]}});
      }
    }
  }
  const mmu::FlushMetrics& flush = totals.metrics.flush;
  w->Counter(
      "tlb_flush_requests_total",
      "Remote TLB flushes asked for, whether a vCPU was running or not.");
  WriteByReason(flush.requests, w);
  w->Counter("tlb_flush_vcpus_kicked_total",
             "vCPUs interrupted by remote TLB flushes.");
  WriteByReason(flush.kicked, w);
  w->Counter("tlb_flush_elided_total",
             "Remote TLB flushes found to be unnecessary.");
  WriteByReason(flush.elided, w);
  w->Histogram("tlb_flush_seconds",
               "Time until every vCPU had acknowledged a TLB flush.");
  for (int scope = 0; scope < mmu::kFlushScopes; ++scope) {
    w->Add(flush.seconds[scope], {{"scope", Label<mmu::FlushScope>(scope)}});
  }
}

void WriteFaultCounts(const mmu::VcpuStatsSnapshot& vcpus, const char* mmu,
                      MetricWriter* w) {
  for (int access = 0; access < mmu::kAccessKinds; ++access) {
    for (int outcome = 0; outcome < mmu::kFaultOutcomes; ++outcome) {
      uint64_t faults = 0;
      for (const auto& of_mmu : vcpus.page_faults) {
        faults += of_mmu[outcome][access];
      }
      w->Add(ToDouble(faults), {{"result", Label<mmu::FaultOutcome>(outcome)},
                                {"access", Label<mmu::AccessKind>(access)},
                                {"mmu", mmu}});
    }
  }
}

void WriteFaults(const MmuTotals& totals, MetricWriter* w) {
  w->Counter("page_faults_total",
             "Page faults of vCPUs, each once, by result: \"fast\" was fixed "
             "without mmu_lock, \"fixed\" with it.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    WriteFaultCounts(totals.metrics_by_mmu[mmu].vcpus, kMmus[mmu], w);
  }
  const mmu::VcpuStatsSnapshot& vcpus = totals.metrics.vcpus;
  w->Histogram("page_fault_seconds", "Time to handle a page fault (sampled).");
  w->Add(vcpus.fault_fast, {{"path", "fast"}});
  w->Add(vcpus.fault_slow, {{"path", "slow"}});
  w->Counter("vcpu_stall_seconds_total",
             "Time that vCPUs stood still; estimated by sampling but for "
             "flush, ring_full and invalidation: the host was taking the page "
             "away, or its memslot was changing. ring_full grows while a vCPU "
             "waits.");
  for (int cause = 0; cause < mmu::kStallCauses; ++cause) {
    w->Add(Seconds(vcpus.stall_nanos[cause]),
           {{"cause", Label<mmu::StallCause>(cause)}});
  }
  w->Gauge("vcpus_waiting", "vCPUs that stand still right now, by cause.");
  w->Add(ToDouble(totals.metrics.vcpus_waiting_for_ring),
         {{"cause", std::string(ToString(mmu::StallCause::kRingFull))}});
}

void WritePages(const MmuTotals& totals, MetricWriter* w) {
  w->Gauge("pages_mapped", "Mappings by size.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    const mmu::VmStatsSnapshot& stats = totals.vm_stats_by_mmu[mmu];
    const char* const label = kMmus[mmu];
    w->Add(ToDouble(stats.pages_4k), {{"page_size", "4k"}, {"mmu", label}});
    w->Add(ToDouble(stats.pages_2m), {{"page_size", "2m"}, {"mmu", label}});
    w->Add(ToDouble(stats.pages_1g), {{"page_size", "1g"}, {"mmu", label}});
  }
  w->Gauge("table_pages", "Page tables of TDP MMUs in use.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    w->Add(ToDouble(totals.vm_stats_by_mmu[mmu].table_pages),
           {{"mmu", kMmus[mmu]}});
  }
}

void WriteTables(const MmuTotals& totals, MetricWriter* w) {
  w->Gauge("page_tables",
           "Page tables of all MMUs that are in use, linked or in the stock of "
           "a vCPU, and those in their grace period: unlinked, but not free "
           "until nobody walks them any more. max_page_tables is on both.");
  w->Add(ToDouble(totals.tables.in_use), {{"state", "in_use"}});
  w->Add(ToDouble(totals.tables.in_grace_period), {{"state", "grace_period"}});
  if (totals.tables.max_tables != 0) {
    w->Gauge("page_tables_limit", "Page tables that there may be.");
    w->Add(ToDouble(totals.tables.max_tables));
  }
  w->Counter(
      "page_table_waits_total",
      "Times that whoever needed page tables, or what shadow pages need "
      "besides, waited for what was about to be free (the end of a grace "
      "period, of a zap) because there were no others.");
  w->Add(ToDouble(totals.table_waits));
}

void WriteShadowPages(const mmu::VmStatsSnapshot& stats, MetricWriter* w) {
  w->Gauge("shadow_pages", "Shadow pages in use.");
  w->Add(ToDouble(stats.mmu_shadow_pages));
  w->Gauge("shadow_pages_limit",
           "Shadow pages that there may be, all VMs that can have some "
           "together.");
  w->Add(ToDouble(stats.shadow_page_limit));
  w->Gauge("unsync_pages",
           "Shadow pages that may be out of step with the guest's tables.");
  w->Add(ToDouble(stats.mmu_unsync));
  w->Counter("shadow_pages_zapped_total", "Shadow pages that were zapped.");
  w->Add(ToDouble(stats.mmu_shadow_zapped));
  w->Counter("shadow_pages_recycled_total",
             "Shadow pages that were zapped to make room for others.");
  w->Add(ToDouble(stats.mmu_recycled));
  w->Counter("shadow_pages_flooded_total",
             "Shadow pages that were zapped because their guest wrote to the "
             "table behind them as if it were none.");
  w->Add(ToDouble(stats.mmu_flooded));
  w->Counter("shadow_pde_zapped_total",
             "Entries above level 1 that were zapped because their guest "
             "changed its own.");
  w->Add(ToDouble(stats.mmu_pde_zapped));
  w->Counter("guest_pte_writes_total",
             "Writes of guests to their tables that were emulated.");
  w->Add(ToDouble(stats.mmu_pte_write));
  w->Counter("shadow_cache_misses_total",
             "Shadow pages that were looked for and had to be made.");
  w->Add(ToDouble(stats.mmu_cache_miss));
}

void WriteSplits(const MmuTotals& totals, MetricWriter* w) {
  const mmu::MmuMetrics& m = totals.metrics;
  w->Counter("huge_page_splits_total", "Huge mappings that were split.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    for (int from = 0; from < 2; ++from) {
      for (int trigger = 0; trigger < mmu::kSplitTriggers; ++trigger) {
        w->AddIfCounted(
            ToDouble(totals.metrics_by_mmu[mmu].splits[from][trigger]),
            {{"from", from == 0 ? "2m" : "1g"},
             {"trigger", Label<mmu::SplitTrigger>(trigger)},
             {"mmu", kMmus[mmu]}});
      }
    }
  }
  w->Counter("huge_page_split_failures_total",
             "What got in the way of splits: no memory or limit for page "
             "tables, where the mapping stays huge, or a race with a vCPU, "
             "after which the split is tried again. invalid_root is always 0: "
             "no root goes out of use while a split holds slots_lock.");
  for (int reason = 0; reason < mmu::kSplitFailures; ++reason) {
    w->Add(ToDouble(m.split_failures[reason]),
           {{"reason", Label<mmu::SplitFailure>(reason)}});
  }
  w->Histogram("huge_page_split_chunk_seconds",
               "Time for one chunk of a split operation.");
  w->Add(m.split_chunk);
  w->Counter("split_throttled_seconds_total",
             "Time that throttles cost splits; lock_hold is the time to take "
             "mmu_lock again.");
  for (size_t i = 0; i < m.split_throttled.size(); ++i) {
    w->Add(absl::ToDoubleSeconds(m.split_throttled[i]),
           {{"limit", Label<mmu::ThrottleLimit>(i)}});
  }
  w->Gauge("split_remaining_bytes",
           "Guest memory that running splits have not been through.");
  w->Add(static_cast<double>(totals.split_remaining_bytes));
  w->Gauge("split_operations_running", "Splits that run.");
  w->Add(static_cast<double>(totals.splits_running));
  w->Counter("huge_page_recoveries_total", "Huge mappings put together again.");
  w->Add(ToDouble(m.recoveries[0]), {{"to", "2m"}});
  w->Add(ToDouble(m.recoveries[1]), {{"to", "1g"}});
}

void WriteDirty(const MmuTotals& totals, MetricWriter* w) {
  const mmu::MmuMetrics& m = totals.metrics;
  w->Gauge("dirty_log_enabled_vms", "VMs that log dirty pages.");
  w->Add(static_cast<double>(totals.logging_vms));
  w->Gauge("dirty_log_expired_leases",
           "VMs whose dirty log's owner has made no call for its lease: "
           "anybody may acquire it.");
  w->Add(static_cast<double>(totals.expired_leases));
  w->Gauge("dirty_log_sealed_pages", "Pages that are sealed and not cleared.");
  w->Add(ToDouble(totals.sealed_pages));
  w->Gauge("dirty_log_in_flight_pages",
           "Pages that were cleared and not acknowledged.");
  w->Add(ToDouble(totals.in_flight_pages));
  w->Gauge("dirty_log_epochs_in_flight",
           "Epochs of which pages are in flight, at most four in each VM.");
  w->Add(ToDouble(totals.epochs_in_flight));
  w->Gauge("dirty_log_undelivered_memslots",
           "Memslots with pages that are sealed or in flight.");
  w->Add(ToDouble(m.undelivered_slots));
  w->Gauge("dirty_log_oldest_undelivered_timestamp_seconds",
           "When the oldest seal was made of which pages are still sealed or "
           "in flight; absent without any.");
  if (totals.oldest_undelivered_seconds.has_value()) {
    w->Add(*totals.oldest_undelivered_seconds);
  }
  w->Counter("dirty_logs_abandoned_total",
             "Dirty logs that ended because their owners made no call for "
             "their time to live.");
  w->Add(ToDouble(totals.abandoned_logs));
  w->Counter("dirty_logs_abandoned_pages_total",
             "Pages that were lost by that: written, and not acknowledged.");
  w->Add(ToDouble(totals.abandoned_pages));
  w->Counter(
      "dirty_log_dirtied_pages_total",
      "Pages that went from clean to dirty, of all VMs there ever were.");
  w->Add(ToDouble(m.dirty_pages));
  w->Counter("dirty_log_harvested_pages_total", "Pages that seals took in.");
  w->Add(ToDouble(m.harvested_pages));
  w->Counter("dirty_log_cleared_pages_total",
             "Pages that clears took into flight.");
  w->Add(ToDouble(m.cleared_pages));
  w->Counter("dirty_ring_full_exits_total",
             "Exits of vCPUs because their dirty ring was full.");
  w->Add(ToDouble(m.vcpus.ring_full_exits));
  w->Gauge("dirty_ring_entries", "Entries of all dirty rings.");
  w->Add(ToDouble(m.dirty_ring_entries));
  w->Gauge("dirty_ring_used_entries",
           "Entries of dirty rings that are in use.");
  w->Add(ToDouble(m.dirty_ring_used_entries));
  w->Histogram("dirty_log_start_seconds", "Time to switch dirty logging on.");
  w->Add(m.dirty_log_start, {}, Buckets::kWork);
  w->Histogram("dirty_log_seal_seconds", "Time to seal an epoch.");
  w->Add(m.dirty_log_seal, {}, Buckets::kWork);
  w->Histogram("dirty_log_clear_seconds", "Time to clear a part of an epoch.");
  w->Add(m.dirty_log_clear, {}, Buckets::kWork);
}

void WriteAging(const MmuTotals& totals, MetricWriter* w) {
  w->Counter("aging_pages_total", "Pages that aging looked at.");
  for (int mmu = 0; mmu < kMmuLabels; ++mmu) {
    const mmu::MmuMetrics& m = totals.metrics_by_mmu[mmu];
    const char* const label = kMmus[mmu];
    w->Add(ToDouble(m.aged_young),
           {{"result", "young"}, {"lock", "none"}, {"mmu", label}});
    w->Add(ToDouble(m.aged_old),
           {{"result", "old"}, {"lock", "none"}, {"mmu", label}});
  }
  w->Histogram("aging_seconds", "Time to age a range.");
  w->Add(totals.metrics.aging, {}, Buckets::kWork);
}

double HoldSeconds(const mmu::LockMetrics& lock, int op) {
  int64_t nanos = 0;
  for (int mode = 0; mode < mmu::kLockModes; ++mode) {
    nanos += lock.ops[mode][op].hold.sum_nanos;
  }
  return Seconds(nanos);
}

// One family of series per VM.
template <typename Fn>
void ForEachVm(const MmuTotals& totals, const Fn& fn) {
  for (const VmSeries& series : totals.vm_series) {
    fn(series.metrics, series.vm);
  }
}

void WriteVms(const MmuTotals& totals, MetricWriter* w) {
  using Metrics = mmu::MmuMetrics;
  w->Counter("dirty_pages_total",
             "Pages of a VM that exists that went from clean to dirty; "
             "vm=\"_other\" are all VMs beyond --metrics_max_vms.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    w->Add(ToDouble(m.dirty_pages), {{"vm", vm}});
  });
  if (totals.other_dirty_pages.has_value()) {
    w->Add(ToDouble(*totals.other_dirty_pages), {{"vm", "_other"}});
  }
  w->Counter("vm_harvested_pages_total", "Pages of a VM that seals took in.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    w->Add(ToDouble(m.harvested_pages), {{"vm", vm}});
  });
  w->Counter("vm_cleared_pages_total", "Pages of a VM that were cleared.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    w->Add(ToDouble(m.cleared_pages), {{"vm", vm}});
  });
  w->Counter("vm_vcpu_stall_seconds_total",
             "Time that vCPUs of a VM stood still, as "
             "vcpu_stall_seconds_total.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    for (int cause = 0; cause < mmu::kStallCauses; ++cause) {
      w->AddIfCounted(Seconds(m.vcpus.stall_nanos[cause]),
                      {{"vm", vm}, {"cause", Label<mmu::StallCause>(cause)}});
    }
  });
  w->Counter("vm_mmu_lock_hold_seconds_total",
             "Time for which mmu_lock of a VM was held, by operation; "
             "op=\"fault\" is estimated by sampling.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    for (int op = 0; op < mmu::kLockOps; ++op) {
      w->AddIfCounted(HoldSeconds(m.lock, op),
                      {{"vm", vm}, {"op", Label<mmu::LockOp>(op)}});
    }
  });
  w->Counter("vm_tlb_flush_requests_total",
             "Remote TLB flushes of a VM that were asked for.");
  ForEachVm(totals, [w](const Metrics& m, const std::string& vm) {
    for (int reason = 0; reason < mmu::kFlushReasons; ++reason) {
      w->AddIfCounted(
          ToDouble(m.flush.requests[reason]),
          {{"vm", vm}, {"reason", Label<mmu::FlushReason>(reason)}});
    }
  });
}

}  // namespace

void WriteMmuMetrics(const MmuTotals& totals, MetricWriter* writer) {
  writer->Gauge("vms", "Virtual machines.");
  writer->Add(static_cast<double>(totals.vms));
  writer->Gauge("vcpus", "vCPUs of all virtual machines.");
  writer->Add(static_cast<double>(totals.vcpus));
  writer->Gauge("vcpus_paused", "vCPUs of VMs that are paused.");
  writer->Add(static_cast<double>(totals.paused_vcpus));
  writer->Gauge("guest_memory_bytes", "Size of all memslots.");
  writer->Add(static_cast<double>(totals.vm_stats.guest_memory_bytes));
  WriteLocks(totals.metrics, writer);
  WriteFlush(totals, writer);
  WriteFaults(totals, writer);
  WritePages(totals, writer);
  WriteTables(totals, writer);
  WriteShadowPages(totals.vm_stats, writer);
  WriteSplits(totals, writer);
  WriteDirty(totals, writer);
  WriteAging(totals, writer);
  WriteVms(totals, writer);
}

}  // namespace mmud
