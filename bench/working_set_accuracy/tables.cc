#include "bench/working_set_accuracy/tables.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "bench/working_set_accuracy/accuracy.h"
#include "bench/working_set_accuracy/experiment.h"
#include "bench/working_set_accuracy/markdown_table.h"
#include "bench/working_set_accuracy/tracked_vm.h"
#include "bench/working_set_accuracy/workloads.h"
#include "mmu_core/vm/jobs/generation_scan.h"

namespace mmu::bench {
namespace {

// 128 MiB.
constexpr uint64_t kPages = 32'768;
constexpr std::array<uint64_t, 3> kIntervals = {2'048, 8'192, 32'768};
// Every interval measures the same accesses of a workload.
constexpr uint64_t kFirstAccess = kMaxWindow * kIntervals.back();
constexpr uint64_t kMeasuredAccesses = 4 * kIntervals.back();

constexpr uint64_t kIntervalOfWindows = kIntervals[1];
constexpr size_t kWindowOfErrors = 1;  // four generations

constexpr uint64_t kFlushAccesses = 10'000;

// With any TLB: an access after the flush walks.
TlbStaleness Exact() {
  return {.name = "flushed at each generation",
          .size = TlbStaleness::Size::kDaemon,
          .at_generations = TlbStaleness::AtGenerations::kFlush};
}

TlbStaleness Limited(size_t entries, size_t ways) {
  return {.name = absl::StrCat(WithCommas(entries), " entries"),
          .size = TlbStaleness::Size::kLimited,
          .entries = entries,
          .ways = ways};
}

TlbStaleness FlushedNowAndThen(TlbStaleness staleness) {
  absl::StrAppend(&staleness.name, ", flushed each ",
                  WithCommas(kFlushAccesses));
  staleness.flush_accesses = kFlushAccesses;
  return staleness;
}

// Those that examine every page.
std::vector<Tracker> EveryPageTrackers() {
  return {{.staleness = Exact()},
          {.staleness = Limited(64, 4)},
          {.staleness = {.name = "the daemon's TLB",
                         .size = TlbStaleness::Size::kDaemon}},
          {.staleness = FlushedNowAndThen(Limited(1536, 12))},
          {.staleness = Limited(1536, 12)},
          {.staleness = FlushedNowAndThen({.name = "no limit"})}};
}

// They are followed by two that look around.
std::vector<Tracker> AllTrackers() {
  std::vector<Tracker> trackers = EveryPageTrackers();
  trackers.push_back({.staleness = Exact(), .scope = ScanScope::kLookAround});
  trackers.push_back(
      {.staleness = Limited(1536, 12), .scope = ScanScope::kLookAround});
  return trackers;
}

std::string Rounded(const Mean& mean) {
  return WithCommas(
      static_cast<uint64_t>(std::llround(mean.Get().value_or(0))));
}

using Row = std::vector<std::string>;
using Rows = std::vector<Row>;

void Append(const Rows& rows, Rows& to) {
  to.insert(to.end(), rows.begin(), rows.end());
}

// Rows of the tables that have all workloads. A value.
struct WorkloadRows {
  Rows accessed;
  Rows recall;
  Rows error;
  Rows windows;
  Rows look_around;

  void Append(const WorkloadRows& rows) {
    bench::Append(rows.accessed, accessed);
    bench::Append(rows.recall, recall);
    bench::Append(rows.error, error);
    bench::Append(rows.windows, windows);
    bench::Append(rows.look_around, look_around);
  }
};

WorkloadRows Headings() {
  Row accessed = {"workload"};
  for (const uint64_t interval : kIntervals) {
    accessed.push_back(absl::StrCat("pages in ", WithCommas(interval)));
  }
  Row intervals = {"workload", "interval"};
  Row windows = {"workload", "window"};
  for (const Tracker& tracker : EveryPageTrackers()) {
    intervals.push_back(tracker.staleness.name);
    windows.push_back(tracker.staleness.name);
  }
  return {.accessed = {accessed},
          .recall = {intervals},
          .error = {intervals},
          .windows = {windows},
          .look_around = {{"workload", "interval", "examined", "precision",
                           "recall", "error, window 1", "error, window 4",
                           "error, window 8", "recall, 1,536 entries"}}};
}

Row RecallRow(const Row& begin, absl::Span<const TrackerAccuracy> trackers) {
  Row row = begin;
  for (const TrackerAccuracy& accuracy : trackers) {
    row.push_back(PerCent(Recall(accuracy.hot)));
  }
  return row;
}

// `window` is an index into kWindows.
Row ErrorRow(const Row& begin, absl::Span<const TrackerAccuracy> trackers,
             size_t window) {
  Row row = begin;
  for (const TrackerAccuracy& accuracy : trackers) {
    row.push_back(PerCent(accuracy.working_set[window].Get(), Sign::kYes));
  }
  return row;
}

Row LookAroundRow(const Row& begin, const TrackerAccuracy& exact,
                  const TrackerAccuracy& stale) {
  Row row = begin;
  row.push_back(PerCent(exact.examined.Get()));
  row.push_back(PerCent(Precision(exact.hot)));
  row.push_back(PerCent(Recall(exact.hot)));
  for (const Mean& error : exact.working_set) {
    row.push_back(PerCent(error.Get(), Sign::kYes));
  }
  row.push_back(PerCent(Recall(stale.hot)));
  return row;
}

absl::StatusOr<WorkloadRows> MeasureWorkload(const AccuracyWorkload& workload) {
  WorkloadRows rows;
  Row accessed = {workload.name};
  for (const uint64_t interval : kIntervals) {
    const absl::StatusOr<ExperimentResult> result =
        RunExperiment({.workload = workload,
                       .pages = kPages,
                       .accesses_per_generation = interval,
                       .first_access = kFirstAccess,
                       .measured_accesses = kMeasuredAccesses},
                      AllTrackers());
    if (!result.ok()) return result.status();
    accessed.push_back(Rounded(result->accessed_pages[0]));
    // Of an idle guest there is nothing else to tell.
    if (result->accessed_pages[0].Get() == 0.0) continue;
    const absl::Span<const TrackerAccuracy> all = result->trackers;
    const size_t every_page = all.size() - 2;
    const Row begin = {workload.name, WithCommas(interval)};
    rows.recall.push_back(RecallRow(begin, all.first(every_page)));
    rows.error.push_back(
        ErrorRow(begin, all.first(every_page), kWindowOfErrors));
    rows.look_around.push_back(
        LookAroundRow(begin, all[every_page], all[every_page + 1]));
    if (interval != kIntervalOfWindows) continue;
    for (size_t w = 0; w < kWindows.size(); ++w) {
      rows.windows.push_back(
          ErrorRow({workload.name, absl::StrCat(kWindows[w])},
                   all.first(every_page), w));
    }
  }
  rows.accessed.push_back(accessed);
  return rows;
}

// How well the newest generations tell the pages that are hot by design, if the
// Accessed bits tell each access.
absl::StatusOr<NamedTable> DesignTable() {
  NamedTable table = {
      .name = "by-design",
      .rows = {{"workload", "interval", "accessed pages", "precision", "recall",
                "precision, 4 newest", "recall, 4 newest"}}};
  const std::vector<Tracker> trackers = {{.staleness = Exact()}};
  for (const AccuracyWorkload& workload :
       {HotCold(), DriftingHotCold(), Zipf()}) {
    for (const uint64_t interval : kIntervals) {
      const absl::StatusOr<ExperimentResult> result =
          RunExperiment({.workload = workload,
                         .pages = kPages,
                         .accesses_per_generation = interval,
                         .first_access = kFirstAccess,
                         .measured_accesses = kMeasuredAccesses,
                         .design = Experiment::Design::kKnown},
                        trackers);
      if (!result.ok()) return result.status();
      const TrackerAccuracy& accuracy = result->trackers[0];
      const SetOverlap& newest = accuracy.by_design[0];
      const SetOverlap& newest4 = accuracy.by_design[1];
      table.rows.push_back({workload.name, WithCommas(interval),
                            Rounded(result->accessed_pages[0]),
                            PerCent(Precision(newest)), PerCent(Recall(newest)),
                            PerCent(Precision(newest4)),
                            PerCent(Recall(newest4))});
    }
  }
  return table;
}

}  // namespace

absl::StatusOr<std::vector<NamedTable>> MakeAccuracyTables(
    const std::string& traces) {
  std::vector<std::future<absl::StatusOr<WorkloadRows>>> measurements;
  for (const AccuracyWorkload& workload : AllWorkloads(traces)) {
    measurements.push_back(
        std::async(std::launch::async, MeasureWorkload, workload));
  }
  absl::StatusOr<NamedTable> design = DesignTable();
  if (!design.ok()) return design.status();
  WorkloadRows rows = Headings();
  for (auto& measurement : measurements) {
    const absl::StatusOr<WorkloadRows> measured = measurement.get();
    if (!measured.ok()) return measured.status();
    rows.Append(*measured);
  }
  return std::vector<NamedTable>{
      {.name = "workloads", .rows = rows.accessed},
      {.name = "recall", .rows = rows.recall},
      {.name = "error", .rows = rows.error},
      {.name = "windows", .rows = rows.windows},
      {.name = "look-around", .rows = rows.look_around},
      *std::move(design)};
}

}  // namespace mmu::bench
