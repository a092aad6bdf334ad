// Measures mmu_core against what the hardware allows; see docs/performance.md.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "bench/access_tracking_perf.h"
#include "bench/dirty_log_perf.h"
#include "bench/growth.h"
#include "bench/harness.h"
#include "bench/memslot_perf.h"
#include "bench/mmu_stress.h"
#include "bench/nested_split_perf.h"
#include "bench/rmap_aging_perf.h"
#include "bench/rows.h"

namespace mmu::bench {
namespace {

constexpr char kHelp[] =
    "Measures the MMU core. Each figure stands beside its limit, measured in\n"
    "the same run; the ratio of the two is the result.\n"
    "\n"
    "  --json          an array of rows for machines instead of the table\n"
    "  --filter=REGEX  only the rows whose name contains a match\n"
    "  --quick         small inputs, one repetition: to see that it works\n"
    "  --list          the names of the rows\n"
    "\n"
    "  bazel run -c opt //bench:mmu_bench -- --filter='^seal'\n"
    "\n"
    "Instead of the rows, a scenario with options of its own:\n"
    "\n"
    "  --scenario NAME -h   the steps of KVM's NAME_test, for the NAMEs\n"
    "                       access_tracking_perf, dirty_log_perf,\n"
    "                       memslot_perf, mmu_stress\n"
    "  --scenario nested_split_perf -h   what splitting ahead spares nested\n"
    "                       guests, by how much of it they write\n"
    "  --scenario rmap_aging_perf -h     what ageing by rmaps costs while\n"
    "                       vCPUs fault and zap in the same pages\n"
    "  --scenario growth    1 GiB to 1 TiB, 4,000 to 32,764 memslots, 1 to 64\n"
    "                       vCPUs; needs 3 GiB\n";

struct Options {
  bool json = false;
  bool list = false;
  bool help = false;
  std::string filter;
  Effort effort;
};

// Prints a message and returns false if an argument is unknown.
bool Parse(int argc, char** argv, Options* options) {
  constexpr std::string_view kFilter = "--filter=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--json") {
      options->json = true;
    } else if (arg == "--list") {
      options->list = true;
    } else if (arg == "--help") {
      options->help = true;
    } else if (arg == "--quick") {
      options->effort = {.repetitions = 1, .quick = true};
    } else if (arg.substr(0, kFilter.size()) == kFilter) {
      options->filter = arg.substr(kFilter.size());
    } else {
      std::fprintf(stderr, "mmu_bench: unknown argument %s; see --help\n",
                   argv[i]);
      return false;
    }
  }
  return true;
}

// Adds the rows that match `filter` to `selected`. Prints a message and returns
// false if `filter` is no regular expression.
bool Select(const std::string& filter, std::vector<Benchmark>* selected) {
  try {
    const std::regex regex(filter);
    for (Benchmark& row : AllRows()) {
      if (std::regex_search(row.name, regex)) {
        selected->push_back(std::move(row));
      }
    }
    return true;
  } catch (const std::regex_error& error) {
    std::fprintf(stderr, "mmu_bench: --filter=%s: %s\n", filter.c_str(),
                 error.what());
    return false;
  }
}

using Arguments = std::vector<std::string>;

// Makes a function that parses options with `parse`, prints `help` if they ask
// for it, or else calls `run`. The function returns the program's exit code.
template <typename Parse, typename Run>
std::function<int(const Arguments&)> With(Parse parse, const char* help,
                                          Run run) {
  return [=](const Arguments& args) {
    const auto options = parse(args);
    if (!options.ok()) {
      std::cerr << "mmu_bench: " << options.status().message() << "\n";
      return 2;
    }
    if (options->help) {
      std::cout << help;
      return 0;
    }
    const absl::Status status = run(*options, std::cout);
    if (status.ok()) return 0;
    std::cerr << "mmu_bench: " << status.message() << "\n";
    return 1;
  };
}

int Growth(const Arguments& args) {
  if (!args.empty()) {
    std::cerr << "mmu_bench: --scenario growth takes no options\n";
    return 2;
  }
  RunGrowth({}, std::cout);
  return 0;
}

const std::map<std::string, std::function<int(const Arguments&)>>& Scenarios() {
  static const auto* const scenarios =
      new std::map<std::string, std::function<int(const Arguments&)>>{
          {"access_tracking_perf",
           With(ParseAccessTrackingPerf, kAccessTrackingPerfHelp,
                RunAccessTrackingPerf)},
          {"dirty_log_perf",
           With(ParseDirtyLogPerf, kDirtyLogPerfHelp, RunDirtyLogPerf)},
          {"growth", Growth},
          {"memslot_perf",
           With(ParseMemslotPerf, kMemslotPerfHelp, RunMemslotPerf)},
          {"mmu_stress", With(ParseMmuStress, kMmuStressHelp, RunMmuStress)},
          {"nested_split_perf", With(ParseNestedSplitPerf, kNestedSplitPerfHelp,
                                     RunNestedSplitPerf)},
          {"rmap_aging_perf",
           With(ParseRmapAgingPerf, kRmapAgingPerfHelp, RunRmapAgingPerf)},
      };
  return *scenarios;
}

// Runs the scenario. `args` begin with --scenario.
int Scenario(Arguments args) {
  std::string name;
  if (const size_t equals = args[0].find('='); equals != std::string::npos) {
    name = args[0].substr(equals + 1);
    args.erase(args.begin());
  } else {
    name = args.size() > 1 ? args[1] : "";
    args.erase(args.begin(), args.begin() + std::min<size_t>(2, args.size()));
  }
  if (const auto found = Scenarios().find(name); found != Scenarios().end()) {
    return found->second(args);
  }
  std::cerr << "mmu_bench: there is no scenario '" << name << "'; there are";
  for (const auto& [known, run] : Scenarios()) std::cerr << " " << known;
  std::cerr << "\n";
  return 2;
}

int Main(int argc, char** argv) {
  if (argc > 1 && absl::StartsWith(argv[1], "--scenario")) {
    return Scenario({argv + 1, argv + argc});
  }
  Options options;
  if (!Parse(argc, argv, &options)) return 2;
  if (options.help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  std::vector<Benchmark> selected;
  if (!Select(options.filter, &selected)) return 2;
  if (selected.empty()) {
    std::fprintf(stderr, "mmu_bench: no row matches --filter=%s; see --list\n",
                 options.filter.c_str());
    return 2;
  }
#ifndef NDEBUG
  if (!options.effort.quick && !options.list) {
    std::fputs("mmu_bench: built with debug checks; use -c opt\n", stderr);
  }
#endif
  std::vector<Row> rows;
  for (const Benchmark& benchmark : selected) {
    if (options.list) {
      std::printf("%s\n", benchmark.name.c_str());
      continue;
    }
    rows.push_back({benchmark.run(options.effort), benchmark.name,
                    benchmark.goal, benchmark.direction});
  }
  if (options.list) return 0;
  std::fputs((options.json ? FormatJson(rows) : FormatTable(rows)).c_str(),
             stdout);
  return 0;
}

}  // namespace

std::vector<Benchmark> AllRows() {
  std::vector<Benchmark> all;
  for (std::vector<Benchmark> (*rows)() :
       {FaultRows, TlbRows, LogRows, SplitRows, SealRows, AgeRows, MemoryRows,
        ContentionRows, StallRows, ShadowFaultRows, ShadowTableRows,
        ShadowSlotRows, Stage2Rows}) {
    std::vector<Benchmark> family = rows();
    std::move(family.begin(), family.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace mmu::bench

int main(int argc, char** argv) { return mmu::bench::Main(argc, argv); }
