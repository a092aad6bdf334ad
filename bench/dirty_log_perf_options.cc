#include <sched.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "bench/dirty_log_perf.h"
#include "bench/l2_guests.h"
#include "bench/scenario.h"
#include "mmu_core/base/address.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::bench {

const char kDirtyLogPerfHelp[] =
    "mmu_bench --scenario dirty_log_perf [OPTIONS]\n"
    "\n"
    "The steps of KVM's dirty_log_perf_test, with its options and its lines.\n"
    "\n"
    "  -a          access pages in random order\n"
    "  -b SIZE     memory per vCPU, as 512M or 1G (1G)\n"
    "  -c LIST     pin vCPU i to the i-th processor of LIST, as 0,1\n"
    "  -e          let the vCPUs run while logging is switched off\n"
    "  -E          no eager page splitting (KVM: eager_page_split=N)\n"
    "  -g          legacy GET: no manual protection, not initially set\n"
    "  -i N        iterations, 2 or more (2)\n"
    "  -m MODE     guest mode; 0, which is the only one\n"
    "  -n          L2 guests access the memory, mapped by L1 with 1G pages\n"
    "  -o          all vCPUs share one range\n"
    "  -p SIZE     guest-physical address where the memory begins (1G)\n"
    "  -r SEED     of the choice between read and write, and of -a (1)\n"
    "  -s BACKING  anonymous, anonymous_thp, anonymous_hugetlb_2mb,\n"
    "              anonymous_hugetlb_1gb, shmem, metadata_2mb, metadata_1gb\n"
    "              (anonymous); metadata_*: no contents, for large guests\n"
    "  -v N        vCPUs (1)\n"
    "  -w PERCENT  of the accesses that write after the populating pass (100)\n"
    "  -x N        memslots, 1 to 32, which must divide the memory (1)\n"
    "\n"
    "  mmu_bench --scenario dirty_log_perf -v 2 -b 1G -s "
    "anonymous_hugetlb_1gb\n";

namespace {

absl::Status ParseCpus(const std::string& text, std::vector<int>* cpus) {
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int cpu = 0;
    if (!absl::SimpleAtoi(part, &cpu) || cpu < 0 || cpu >= CPU_SETSIZE) {
      return BadOption("-c", text,
                       "processor numbers with commas between them");
    }
    cpus->push_back(cpu);
  }
  return absl::OkStatus();
}

// An error about several options, in the form of ParseScenario's errors.
absl::Status BadTogether(absl::string_view option, absl::string_view value,
                         absl::string_view rule) {
  return BadOption(absl::StrCat("dirty_log_perf: ", option), value, rule);
}

absl::Status CheckTogether(const DirtyLogPerfOptions& options) {
  if (!options.cpus.empty() &&
      options.cpus.size() != static_cast<size_t>(options.vcpus)) {
    return BadTogether("-c", absl::StrCat(options.cpus.size(), " processors"),
                       absl::StrCat("as many as -v says: ", options.vcpus));
  }
  const uint64_t regions = options.overlap ? 1 : options.vcpus;
  const uint64_t pages = options.bytes_per_vcpu / kPageSize * regions;
  if (pages % options.slots != 0) {
    return BadTogether(
        "-x", absl::StrCat(options.slots),
        absl::StrCat("a divisor of the ", pages, " pages of memory"));
  }
  if (options.nested && options.offset_bytes < L2Guests::kTableBytes) {
    return BadTogether("-p", absl::StrCat(options.offset_bytes),
                       absl::StrCat("at least ", L2Guests::kTableBytes,
                                    " with -n, for the tables of L1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DirtyLogPerfOptions> ParseDirtyLogPerf(
    absl::Span<const std::string> args) {
  DirtyLogPerfOptions o;
  bool no_split = false;
  uint64_t mode = 0;
  const std::vector<ScenarioOption> options = {
      FlagOption('a', &o.random_access),
      SizeOption('b', kPageSize, &o.bytes_per_vcpu),
      {.letter = 'c',
       .parse = [&](const std::string& v) { return ParseCpus(v, &o.cpus); }},
      FlagOption('e', &o.run_while_disabling),
      FlagOption('E', &no_split),
      FlagOption('g', &o.legacy_get),
      FlagOption('h', &o.help),
      NumberOption('i', 2, 1'000'000, &o.iterations),
      NumberOption('m', 0, 0, &mode),
      FlagOption('n', &o.nested),
      FlagOption('o', &o.overlap),
      SizeOption('p', 0, &o.offset_bytes),
      NumberOption('r', 0, INT64_MAX, &o.seed),
      BackingOption(&o.backing, &o.host_page_level),
      NumberOption('v', 1, kMaxVcpus, &o.vcpus),
      NumberOption('w', 0, 100, &o.write_percent),
      NumberOption('x', 1, 32, &o.slots),
  };
  absl::Status status = ParseScenario("dirty_log_perf", args, options);
  if (status.ok()) status = CheckTogether(o);
  if (!status.ok()) return status;
  o.eager_page_split = !no_split;
  return o;
}

}  // namespace mmu::bench
