// The common parts of the scenarios of mmu_bench: options and times in the form
// of KVM's tests, and vCPUs that make passes.

#ifndef BENCH_SCENARIO_H_
#define BENCH_SCENARIO_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"

namespace mmu::bench {

// The duration as "S.NNNNNNNNNs".
std::string Seconds(absl::Duration duration);

template <typename Fn>
absl::Duration Timed(Fn fn) {
  const MonotonicTime begin = MonotonicTime::Now();
  fn();
  return MonotonicTime::Now() - begin;
}

// --- Options ---

// Returns INVALID_ARGUMENT with the message "OPTION VALUE: must be RULE".
absl::Status BadOption(absl::string_view option, absl::string_view value,
                       absl::string_view rule);

// One option: a letter and the parser of its value. An option without `parse`
// takes no value and sets `flag`.
struct ScenarioOption {
  char letter;
  bool* flag = nullptr;
  std::function<absl::Status(const std::string& value)> parse = nullptr;
};
ScenarioOption FlagOption(char letter, bool* flag);
template <typename T>
ScenarioOption NumberOption(char letter, int64_t min, int64_t max, T* number);
// A number of bytes: whole pages, at least `min`, with K, M, G or T for powers
// of 1024.
ScenarioOption SizeOption(char letter, uint64_t min, uint64_t* bytes);
// -s: the kind of memory, named as in KVM's tests.
ScenarioOption BackingOption(BackingKind* kind, Level* level);
// The names that BackingOption takes, with commas between them.
std::string BackingNames();

// Parses `args`, which does not contain the program's name. A value follows its
// letter directly or is the next argument. --help is -h. An error begins with
// the scenario's name and names the option, the value and the rule.
absl::Status ParseScenario(absl::string_view scenario,
                           absl::Span<const std::string> args,
                           const std::vector<ScenarioOption>& options);

absl::Status ParseSignedNumber(absl::string_view option,
                               const std::string& text, int64_t min,
                               int64_t max, int64_t* number);

template <typename T>
ScenarioOption NumberOption(char letter, int64_t min, int64_t max, T* number) {
  return {.letter = letter, .parse = [=](const std::string& value) {
            int64_t parsed = 0;
            absl::Status status = ParseSignedNumber(std::string("-") + letter,
                                                    value, min, max, &parsed);
            if (status.ok()) *number = static_cast<T>(parsed);
            return status;
          }};
}

// --- vCPUs ---

// One thread per vCPU of a VM. The threads are idle until Run or Start makes
// each of them call a function once, with its own vCPU in guest mode. Only the
// thread that made the object may call its functions.
class VcpuThreads {
 public:
  using Body = std::function<absl::Status(Vcpu& vcpu)>;

  explicit VcpuThreads(Vm& vm);
  // REQUIRES: no thread runs.
  ~VcpuThreads();
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;

  // Makes all threads call `body` and waits for the last. Returns the time that
  // this took.
  absl::Duration Run(Body body);
  // Run in two steps. Start REQUIRES: no thread runs.
  void Start(Body body);
  void Wait();

  // The first error that a body returned; OK if none did.
  absl::Status status() const;

 private:
  void Loop(int index);

  Vm& vm_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  Body body_;         // under mu_; constant while a thread runs
  uint64_t run_ = 0;  // under mu_, as are all below
  size_t done_ = 0;
  bool quit_ = false;
  absl::Status status_;
  std::vector<std::thread> threads_;
};

// Makes one access by the vCPU. Returns an error if the access fails.
absl::Status AccessOrError(Vcpu& vcpu, Gpa gpa, AccessKind kind,
                           uint64_t* word);

}  // namespace mmu::bench

#endif  // BENCH_SCENARIO_H_
