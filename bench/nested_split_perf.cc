#include "bench/nested_split_perf.h"

#include <sstream>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/dirty_log_perf.h"
#include "bench/harness.h"
#include "bench/scenario.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::bench {

const char kNestedSplitPerfHelp[] =
    "mmu_bench --scenario nested_split_perf [OPTIONS]\n"
    "\n"
    "dirty_log_perf -n -g -s metadata_1gb with and without eager page\n"
    "splitting, side by side: medians, in milliseconds.\n"
    "\n"
    "  -b SIZE  memory per vCPU, as 512M or 1G (1G)\n"
    "  -i N     runs of each (5)\n"
    "  -v N     vCPUs: 1, 2, 4 and so on up to N (2)\n";

namespace {

// The times, in milliseconds, of the runs with or without eager splitting.
struct Side {
  std::vector<double> enable;
  std::vector<double> first_dirty;
};

absl::Status Measure(const DirtyLogPerfOptions& options, Side* side) {
  std::ostringstream lines;
  const absl::StatusOr<DirtyLogPerfTimes> times =
      MeasureDirtyLogPerf(options, lines);
  if (!times.ok()) return times.status();
  side->enable.push_back(absl::ToDoubleMilliseconds(times->enable));
  side->first_dirty.push_back(absl::ToDoubleMilliseconds(times->first_dirty));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NestedSplitPerfOptions> ParseNestedSplitPerf(
    absl::Span<const std::string> args) {
  NestedSplitPerfOptions o;
  const absl::Status status = ParseScenario(
      "nested_split_perf", args,
      {SizeOption('b', kPageSize, &o.bytes_per_vcpu), FlagOption('h', &o.help),
       NumberOption('i', 1, 1000, &o.repetitions),
       NumberOption('v', 1, kMaxVcpus, &o.max_vcpus)});
  if (!status.ok()) return status;
  return o;
}

absl::Status RunNestedSplitPerf(const NestedSplitPerfOptions& options,
                                std::ostream& out) {
  out << absl::StrFormat("%6s %5s  %22s  %33s\n", "", "", "enable, ms",
                         "iteration 1 dirty memory, ms");
  out << absl::StrFormat("%6s %5s  %10s %11s  %10s %11s %10s\n", "writes",
                         "vCPUs", "lazy", "eager", "lazy", "eager",
                         "lazy/eager");
  for (const uint32_t percent : {100, 50, 5}) {
    for (int vcpus = 1; vcpus <= options.max_vcpus; vcpus *= 2) {
      DirtyLogPerfOptions run;
      run.nested = true;
      run.legacy_get = true;  // enabling must split
      run.bytes_per_vcpu = options.bytes_per_vcpu;
      run.vcpus = vcpus;
      run.write_percent = percent;
      run.backing = BackingKind::kMetadataOnly;
      run.host_page_level = Level::k1G;
      Side lazy;
      Side eager;
      for (int i = 0; i < options.repetitions; ++i) {
        run.eager_page_split = false;
        absl::Status status = Measure(run, &lazy);
        run.eager_page_split = true;
        if (status.ok()) status = Measure(run, &eager);
        if (!status.ok()) return status;
      }
      const double before = Median(lazy.first_dirty);
      const double after = Median(eager.first_dirty);
      out << absl::StrFormat("%5d%% %5d  %10.2f %11.2f  %10.2f %11.2f %10.2f\n",
                             percent, vcpus, Median(lazy.enable),
                             Median(eager.enable), before, after,
                             before / after)
          << std::flush;
    }
  }
  return absl::OkStatus();
}

}  // namespace mmu::bench
