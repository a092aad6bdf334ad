#include <sched.h>

#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "bench/dirty_log_perf.h"
#include "mmu_core/base/address.h"
#include "mmu_core/vm/vm_config.h"

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
    "-n (nested) needs the shadow MMU and is refused.\n"
    "\n"
    "  mmu_bench --scenario dirty_log_perf -v 2 -b 1G -s "
    "anonymous_hugetlb_1gb\n";

namespace {

struct Backing {
  BackingKind kind;
  Level level;
};

const std::map<std::string, Backing>& Backings() {
  static const auto* const backings = new std::map<std::string, Backing>{
      {"anonymous", {BackingKind::kAnonymous, Level::k4K}},
      {"anonymous_thp", {BackingKind::kAnonymous, Level::k2M}},
      {"anonymous_hugetlb_2mb", {BackingKind::kAnonymous, Level::k2M}},
      {"anonymous_hugetlb_1gb", {BackingKind::kAnonymous, Level::k1G}},
      {"shmem", {BackingKind::kMemfd, Level::k4K}},
      {"metadata_2mb", {BackingKind::kMetadataOnly, Level::k2M}},
      {"metadata_1gb", {BackingKind::kMetadataOnly, Level::k1G}},
  };
  return *backings;
}

absl::Status Bad(absl::string_view option, absl::string_view value,
                 absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("dirty_log_perf: ", option, " ", value, ": must be ", rule));
}

absl::Status ParseNumber(absl::string_view option, const std::string& text,
                         uint64_t min, uint64_t max, uint64_t* number) {
  if (!absl::SimpleAtoi(text, number) || *number < min || *number > max) {
    return Bad(option, text, absl::StrCat("a number from ", min, " to ", max));
  }
  return absl::OkStatus();
}

// A whole number of pages, with K, M, G or T for powers of 1024.
absl::Status ParseSize(absl::string_view option, const std::string& text,
                       uint64_t* bytes) {
  constexpr absl::string_view kUnits = "KMGT";
  constexpr absl::string_view kRule =
      "a multiple of 4096 up to 64T, as 4096, 512M or 1G";
  absl::string_view digits = text;
  uint64_t unit = 1;
  if (!digits.empty()) {
    const char last = static_cast<char>(std::toupper(digits.back()));
    if (const size_t at = kUnits.find(last); at != absl::string_view::npos) {
      unit = uint64_t{1} << (10 * (at + 1));
      digits.remove_suffix(1);
    }
  }
  constexpr uint64_t kMax = uint64_t{64} << 40;
  if (!absl::SimpleAtoi(digits, bytes) || *bytes > kMax / unit) {
    return Bad(option, text, kRule);
  }
  *bytes *= unit;
  return *bytes % kPageSize == 0 ? absl::OkStatus() : Bad(option, text, kRule);
}

absl::Status ParseCpus(const std::string& text, std::vector<int>* cpus) {
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int cpu = 0;
    if (!absl::SimpleAtoi(part, &cpu) || cpu < 0 || cpu >= CPU_SETSIZE) {
      return Bad("-c", text, "processor numbers with commas between them");
    }
    cpus->push_back(cpu);
  }
  return absl::OkStatus();
}

// Options without a value.
bool ParseSwitch(char letter, DirtyLogPerfOptions* options) {
  switch (letter) {
    case 'a':
      return options->random_access = true;
    case 'e':
      return options->run_while_disabling = true;
    case 'E':
      options->eager_page_split = false;
      return true;
    case 'g':
      return options->legacy_get = true;
    case 'h':
      return options->help = true;
    case 'o':
      return options->overlap = true;
    default:
      return false;
  }
}

absl::Status ParseValue(char letter, const std::string& text,
                        DirtyLogPerfOptions* options) {
  uint64_t number = 0;
  absl::Status status;
  switch (letter) {
    case 'b':
      status = ParseSize("-b", text, &options->bytes_per_vcpu);
      if (status.ok() && options->bytes_per_vcpu == 0) {
        return Bad("-b", text, "at least 4096");
      }
      return status;
    case 'c':
      return ParseCpus(text, &options->cpus);
    case 'i':
      return ParseNumber("-i", text, 2, 1'000'000, &options->iterations);
    case 'm':
      return ParseNumber("-m", text, 0, 0, &number);
    case 'p':
      return ParseSize("-p", text, &options->offset_bytes);
    case 'r':
      return ParseNumber("-r", text, 0, UINT64_MAX, &options->seed);
    case 's': {
      const auto found = Backings().find(text);
      if (found == Backings().end()) {
        std::string names;
        for (const auto& [name, backing] : Backings()) {
          absl::StrAppend(&names, names.empty() ? "" : ", ", name);
        }
        return Bad("-s", text, absl::StrCat("one of ", names));
      }
      options->backing = found->second.kind;
      options->host_page_level = found->second.level;
      return absl::OkStatus();
    }
    case 'v':
      status = ParseNumber("-v", text, 1, kMaxVcpus, &number);
      options->vcpus = static_cast<int>(number);
      return status;
    case 'w':
      status = ParseNumber("-w", text, 0, 100, &number);
      options->write_percent = static_cast<uint32_t>(number);
      return status;
    case 'x':
      status = ParseNumber("-x", text, 1, 32, &number);
      options->slots = static_cast<uint32_t>(number);
      return status;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "dirty_log_perf: unknown option -", std::string(1, letter),
          "; see --scenario dirty_log_perf -h"));
  }
}

absl::Status CheckTogether(const DirtyLogPerfOptions& options) {
  if (!options.cpus.empty() &&
      options.cpus.size() != static_cast<size_t>(options.vcpus)) {
    return Bad("-c", absl::StrCat(options.cpus.size(), " processors"),
               absl::StrCat("as many as -v says: ", options.vcpus));
  }
  const uint64_t regions = options.overlap ? 1 : options.vcpus;
  const uint64_t pages = options.bytes_per_vcpu / kPageSize * regions;
  if (pages % options.slots != 0) {
    return Bad("-x", absl::StrCat(options.slots),
               absl::StrCat("a divisor of the ", pages, " pages of memory"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DirtyLogPerfOptions> ParseDirtyLogPerf(
    absl::Span<const std::string> args) {
  DirtyLogPerfOptions options;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--help") {
      options.help = true;
      continue;
    }
    if (arg.size() < 2 || arg[0] != '-') {
      return absl::InvalidArgumentError(
          absl::StrCat("dirty_log_perf: '", arg, "' is not an option; see -h"));
    }
    const char letter = arg[1];
    if (letter == 'n') {
      return absl::UnimplementedError(
          "dirty_log_perf: -n: nested guests need the shadow MMU");
    }
    if (ParseSwitch(letter, &options)) {
      if (arg.size() == 2) continue;
      return Bad(arg.substr(0, 2), arg.substr(2), "given without a value");
    }
    // The value stands behind the letter or is the next argument.
    std::string value = arg.substr(2);
    if (value.empty()) {
      if (++i == args.size()) return Bad(arg, "", "followed by a value");
      value = args[i];
    }
    if (absl::Status status = ParseValue(letter, value, &options);
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = CheckTogether(options); !status.ok()) return status;
  return options;
}

}  // namespace mmu::bench
