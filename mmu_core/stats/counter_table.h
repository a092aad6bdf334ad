// The table of counters: one row for each number that a VM or the process
// counts. A row has the counter's name and meaning, says where the counter is
// shown, and how the counters of several VMs are added up. All code that
// copies, shows or adds up counters walks the table. So a new counter needs a
// declaration, the code that counts, and a row. ShadowNumbers, VmNumbers and
// VcpuNumbers declare a counter once, for the counting object and for its
// snapshots.
//
// A row has one value, or one for each combination of its labels: the TLB
// flushes, say, have one for each scope, reason and MMU.

#ifndef MMU_CORE_STATS_COUNTER_TABLE_H_
#define MMU_CORE_STATS_COUNTER_TABLE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vcpu_counters.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_counters.h"
#include "mmu_core/stats/vm_stats.h"

namespace mmu {

// The kind of a number, which decides how the numbers of several VMs are
// combined.
enum class CounterKind : uint8_t {
  kCumulative,  // events since the VM was created: the sum over all VMs,
                // deleted ones included
  kInstant,     // the present number: the sum over the existing VMs
  kPeak,        // the highest number so far: the maximum of the existing VMs
};

enum class CounterUnit : uint8_t { kCount, kBytes, kNanoseconds };

// Whether GetMmuStats lists a counter.
enum class InStatistics : uint8_t { kNo, kYes };

// When a metric has a series of its own for a combination of labels.
enum class SeriesFrom : uint8_t {
  kStart,       // at once, with the value 0
  kFirstEvent,  // once it is not 0: most combinations never occur
};

// How far the buckets of a histogram reach.
enum class HistogramReach : uint8_t {
  kStep,  // to 4 s: a wait, a hold, a flush, a fault
  kWork,  // to more than an hour: work that a caller waits for
};

// One label of a counter, and its values.
struct CounterLabel {
  std::string_view name;
  int size = 0;
  std::string_view (*value)(int index) = nullptr;
};

// How a counter appears on /metrics. A value.
struct CounterMetric {
  std::string_view family;  // without the prefix "mmud_"; empty: none
  std::string_view help;
  SeriesFrom series_from = SeriesFrom::kStart;
  HistogramReach reach = HistogramReach::kStep;
};

// An index for each label of a row; 0 for the labels that the row lacks.
inline constexpr int kMaxCounterLabels = 3;
using CounterIndex = std::array<int, kMaxCounterLabels>;

// A row of the table: a counter of a VM, of a vCPU, or of the process. A value.
template <typename Snapshot>
struct CounterRow {
  // The name in GetMmuStats; for a row with labels see NameAt.
  std::string_view name;
  CounterKind kind = CounterKind::kCumulative;
  CounterUnit unit = CounterUnit::kCount;
  InStatistics in_statistics = InStatistics::kNo;
  // Counts what only x86 has: always 0 for a VM on stage-2 tables, and not
  // listed for it (STAT-40).
  bool of_x86 = false;
  CounterMetric metric = {};  // of all VMs together
  // Of each VM that has series of its own, with the label "vm" before `labels`.
  CounterMetric vm_metric = {};
  std::array<const CounterLabel*, kMaxCounterLabels> labels = {};  // then null
  // The counter's place in a snapshot. Exactly one of the two is not null; a
  // histogram is cumulative, its unit nanoseconds.
  const uint64_t& (*value)(const Snapshot&, const CounterIndex&) = nullptr;
  const LatencySnapshot& (*histogram)(const Snapshot&,
                                      const CounterIndex&) = nullptr;
  // Reads the counter itself: CopyCounters copies the value or the histogram
  // from there. Both are null if the number comes from elsewhere (mmu_lock, a
  // ring).
  uint64_t (*live)(const typename Snapshot::Live&,
                   const CounterIndex&) = nullptr;
  LatencySnapshot (*live_histogram)(const typename Snapshot::Live&,
                                    const CounterIndex&) = nullptr;
  // For a value that follows from others of the same snapshot: CopyCounters
  // computes it from these copies, so that a snapshot taken while vCPUs run
  // agrees with itself. Then `live` is null.
  uint64_t (*derived)(const Snapshot&, const CounterIndex&) = nullptr;

  // The name of one value: the row's name, then "_" and the value of each
  // label.
  std::string NameAt(const CounterIndex& index) const {
    std::string full(name);
    for (int i = 0; i < kMaxCounterLabels && labels[i] != nullptr; ++i) {
      full += '_';
      full += labels[i]->value(index[i]);
    }
    return full;
  }

  // Whether this is the row of a member that is a number.
  bool IsOf(uint64_t Snapshot::*member) const {
    if (value == nullptr) return false;
    static const Snapshot snapshot;
    return &value(snapshot, {}) == &(snapshot.*member);
  }

  // Calls fn(index) for each combination of the labels' values.
  template <typename Fn>
  void ForEach(const Fn& fn) const {
    CounterIndex i = {};
    for (i[0] = 0; i[0] < SizeOf(0); ++i[0]) {
      for (i[1] = 0; i[1] < SizeOf(1); ++i[1]) {
        for (i[2] = 0; i[2] < SizeOf(2); ++i[2]) fn(CounterIndex(i));
      }
    }
  }

  // The same places in a snapshot that may be changed.
  uint64_t& Value(Snapshot& snapshot, const CounterIndex& index) const {
    return const_cast<uint64_t&>(value(snapshot, index));
  }
  LatencySnapshot& Histogram(Snapshot& snapshot,
                             const CounterIndex& index) const {
    return const_cast<LatencySnapshot&>(histogram(snapshot, index));
  }

 private:
  int SizeOf(int label) const {
    return labels[label] == nullptr ? 1 : labels[label]->size;
  }
};

using VmCounterRow = CounterRow<VmStatsSnapshot>;
using VcpuCounterRow = CounterRow<VcpuStatsSnapshot>;
using ProcessCounterRow = CounterRow<ProcessStatsSnapshot>;

// All counters of a VM but those of its vCPUs.
absl::Span<const VmCounterRow> VmCounterRows();
// All counters of a vCPU. A VM has their sum (VmStatsSnapshot::vcpus).
absl::Span<const VcpuCounterRow> VcpuCounterRows();
// All counters of the process that belong to no VM. Two rows may have one
// number, since GetMmuStats and /metrics do not name all of them alike.
absl::Span<const ProcessCounterRow> ProcessCounterRows();

// Copies each counter that is counted in `from` to its place in a snapshot, and
// leaves the other places as they are.
void CopyCounters(const VmCounters& from, VmStatsSnapshot* to);
void CopyCounters(const VcpuCounters& from, VcpuStatsSnapshot* to);

// Adds the counters of a VM that exists to the sum of others.
void AddUp(const VmStatsSnapshot& vm, VmStatsSnapshot* sum);
// Adds the cumulative counters of a VM that is being deleted.
void AddWhatStays(const VmStatsSnapshot& vm, VmStatsSnapshot* sum);

}  // namespace mmu

#endif  // MMU_CORE_STATS_COUNTER_TABLE_H_
