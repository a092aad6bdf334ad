#include "bench/scenario.h"

#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

struct BackingChoice {
  BackingKind kind;
  Level level;
};

const std::map<std::string, BackingChoice>& Backings() {
  static const auto* const backings = new std::map<std::string, BackingChoice>{
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
    return BadOption(option, text, kRule);
  }
  *bytes *= unit;
  return *bytes % kPageSize == 0 ? absl::OkStatus()
                                 : BadOption(option, text, kRule);
}

absl::Status ParseAll(absl::Span<const std::string> args,
                      const std::vector<ScenarioOption>& options) {
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string arg = args[i] == "--help" ? "-h" : args[i];
    if (arg.size() < 2 || arg[0] != '-') {
      return absl::InvalidArgumentError(
          absl::StrCat("'", arg, "' is not an option; see -h"));
    }
    const ScenarioOption* option = nullptr;
    for (const ScenarioOption& candidate : options) {
      if (candidate.letter == arg[1]) option = &candidate;
    }
    if (option == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown option ", arg.substr(0, 2), "; see -h"));
    }
    std::string value = arg.substr(2);
    if (option->flag != nullptr) {
      if (!value.empty()) {
        return BadOption(arg.substr(0, 2), value, "given without a value");
      }
      *option->flag = true;
      continue;
    }
    if (value.empty()) {
      if (++i == args.size()) return BadOption(arg, "", "followed by a value");
      value = args[i];
    }
    if (absl::Status status = option->parse(value); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Seconds(absl::Duration duration) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  return absl::StrFormat("%d.%09ds", nanos / 1'000'000'000,
                         nanos % 1'000'000'000);
}

absl::Status BadOption(absl::string_view option, absl::string_view value,
                       absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat(option, " ", value, ": must be ", rule));
}

absl::Status ParseSignedNumber(absl::string_view option,
                               const std::string& text, int64_t min,
                               int64_t max, int64_t* number) {
  if (!absl::SimpleAtoi(text, number) || *number < min || *number > max) {
    return BadOption(option, text,
                     absl::StrCat("a number from ", min, " to ", max));
  }
  return absl::OkStatus();
}

ScenarioOption FlagOption(char letter, bool* flag) {
  return {.letter = letter, .flag = flag};
}

ScenarioOption SizeOption(char letter, uint64_t min, uint64_t* bytes) {
  return {.letter = letter, .parse = [=](const std::string& value) {
            const std::string option = std::string("-") + letter;
            absl::Status status = ParseSize(option, value, bytes);
            if (status.ok() && *bytes < min) {
              status = BadOption(option, value, absl::StrCat("at least ", min));
            }
            return status;
          }};
}

ScenarioOption BackingOption(BackingKind* kind, Level* level) {
  return {.letter = 's', .parse = [=](const std::string& value) {
            const auto found = Backings().find(value);
            if (found == Backings().end()) {
              return BadOption("-s", value,
                               absl::StrCat("one of ", BackingNames()));
            }
            *kind = found->second.kind;
            *level = found->second.level;
            return absl::OkStatus();
          }};
}

std::string BackingNames() {
  std::string names;
  for (const auto& [name, backing] : Backings()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return names;
}

absl::Status ParseScenario(absl::string_view scenario,
                           absl::Span<const std::string> args,
                           const std::vector<ScenarioOption>& options) {
  const absl::Status status = ParseAll(args, options);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(scenario, ": ", status.message()));
}

VcpuThreads::VcpuThreads(Vm& vm) : vm_(vm) {
  const int vcpus = static_cast<int>(vm.state().vcpus.size());
  for (int i = 0; i < vcpus; ++i) {
    threads_.emplace_back([this, i] { Loop(i); });
  }
}

VcpuThreads::~VcpuThreads() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    quit_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Duration VcpuThreads::Run(Body body) {
  return Timed([&] {
    Start(std::move(body));
    Wait();
  });
}

void VcpuThreads::Start(Body body) {
  std::lock_guard<std::mutex> lock(mu_);
  body_ = std::move(body);
  done_ = 0;
  ++run_;
  changed_.notify_all();
}

void VcpuThreads::Wait() {
  std::unique_lock<std::mutex> lock(mu_);
  changed_.wait(lock, [&] { return done_ == threads_.size(); });
}

absl::Status VcpuThreads::status() const {
  std::lock_guard<std::mutex> lock(mu_);
  return status_;
}

void VcpuThreads::Loop(int index) {
  Vcpu& vcpu = *vm_.state().vcpus[index];
  for (uint64_t run = 1;; ++run) {
    {
      std::unique_lock<std::mutex> lock(mu_);
      changed_.wait(lock, [&] { return quit_ || run_ >= run; });
      if (quit_) return;
    }
    vcpu.EnterGuest();
    const absl::Status status = body_(vcpu);
    vcpu.ExitGuest();
    std::lock_guard<std::mutex> lock(mu_);
    if (status_.ok()) status_ = status;
    ++done_;
    changed_.notify_all();
  }
}

absl::Status AccessOrError(Vcpu& vcpu, Gpa gpa, AccessKind kind,
                           uint64_t* word) {
  switch (vcpu.Access(gpa, kind, word)) {
    case AccessOutcome::kDone:
      return absl::OkStatus();
    case AccessOutcome::kError:
      return vcpu.status();
    default:
      return absl::InternalError(
          absl::StrFormat("vCPU %d: the access to gpa 0x%x left guest memory",
                          vcpu.index(), gpa.value()));
  }
}

}  // namespace mmu::bench
