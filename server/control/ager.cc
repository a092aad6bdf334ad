#include "server/control/ager.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "server/base/thread_cpu_time.h"
#include "server/control/working_set_sizes.h"

namespace mmud {
namespace {

// Where much changes, halve the interval; where little does, make it half as
// long again. In between it stays, so that it comes to rest.
constexpr double kMuchChanged = 0.5;
constexpr double kLittleChanged = 0.2;
constexpr double kLonger = 1.5;

}  // namespace

absl::optional<double> ChangedRatio(const mmu::WorkingSetSnapshot& now) {
  size_t newest = 0;
  while (newest < now.generations.size() &&
         !now.generations[newest].ended_at_nanos.has_value()) {
    ++newest;
  }
  if (newest + 1 >= now.generations.size()) return absl::nullopt;
  const auto young =
      static_cast<double>(now.generations[newest].totals.young_pages);
  const auto young_before =
      static_cast<double>(now.generations[newest + 1].totals.young_pages);
  // The pages of the generation before that are still in its bin: the newest
  // one did not find them young.
  const auto left =
      std::min(static_cast<double>(now.bins[newest + 1].pages), young_before);
  const double came = std::max(young - (young_before - left), 0.0);
  // Of all pages that either generation found young. Those of memslots that are
  // gone are in no bin.
  if (young + left == 0) return absl::nullopt;
  return (left + came) / (young + left);
}

absl::Duration NextInterval(absl::Duration interval,
                            absl::optional<double> changed,
                            const AgerSettings& settings) {
  if (changed.has_value() && *changed >= kMuchChanged) {
    interval /= 2;
  } else if (!changed.has_value() || *changed <= kLittleChanged) {
    interval *= kLonger;
  }
  return std::clamp(interval, settings.min_interval, settings.max_interval);
}

AgerState Ager::state() const {
  absl::MutexLock lock(&mu_);
  AgerState state = state_;
  state.interval = std::clamp(state.interval, state.settings.min_interval,
                              state.settings.max_interval);
  return state;
}

absl::Status Ager::Update(
    absl::FunctionRef<absl::Status(AgerSettings*)> change) {
  absl::MutexLock lock(&mu_);
  AgerSettings changed = state_.settings;
  if (absl::Status status = change(&changed); !status.ok()) return status;
  state_.settings = changed;
  return absl::OkStatus();
}

void Ager::ForgetWorkingSet() {
  absl::MutexLock lock(&mu_);
  state_.settings.enabled = false;
  state_.interval = absl::ZeroDuration();
  state_.changed_ratio = absl::nullopt;
  began_ = mmu::MonotonicTime::InfinitePast();
  vm_.ForgetWorkingSet();
}

mmu::MonotonicTime Ager::DueLocked() const {
  const mmu::MonotonicTime budget =
      piece_end_ + PauseForBudget(piece_cpu_time_, state_.settings.cpu_percent);
  if (scan_ != nullptr) return budget;
  // A change of the settings takes effect now.
  return std::max(
      budget, began_ + std::clamp(state_.interval, state_.settings.min_interval,
                                  state_.settings.max_interval));
}

Ager::Outcome Ager::Step(mmu::MonotonicTime now) {
  Outcome outcome;
  // Ends as incomplete if it did not end.
  if (scan_ != nullptr && scan_->forgotten()) scan_.reset();
  bool enabled = false;
  {
    absl::MutexLock lock(&mu_);
    enabled = state_.settings.enabled;
    if (!enabled) began_ = mmu::MonotonicTime::InfinitePast();
    outcome.due = enabled ? DueLocked() : mmu::MonotonicTime::InfiniteFuture();
    if (enabled && now >= outcome.due && scan_ == nullptr) began_ = now;
  }
  if (!enabled) scan_.reset();
  if (now < outcome.due) return outcome;

  const absl::Duration begin = ThreadCpuTime();
  const absl::StatusOr<bool> ended =
      mmu::WithMemory("vm", "examine the VM's memory", [&] { return Work(); });
  outcome.failed = !ended.ok();
  outcome.ended_generation = ended.value_or(false);
  outcome.cpu_time = ThreadCpuTime() - begin;

  absl::MutexLock lock(&mu_);
  state_.cpu_time += outcome.cpu_time;
  state_.generations += outcome.ended_generation ? 1 : 0;
  state_.failures += outcome.failed ? 1 : 0;
  state_.last_error = ended.status();
  piece_end_ = now + outcome.cpu_time;
  piece_cpu_time_ = outcome.cpu_time;
  outcome.due = DueLocked();
  return outcome;
}

absl::StatusOr<std::unique_ptr<mmu::GenerationScan>> Ager::Begin() {
  absl::MutexLock lock(&mu_);
  if (!state_.settings.enabled) return nullptr;
  return vm_.BeginGeneration(state_.settings.options);
}

absl::StatusOr<bool> Ager::Work() {
  if (scan_ == nullptr) {
    absl::StatusOr<std::unique_ptr<mmu::GenerationScan>> scan = Begin();
    if (!scan.ok()) return scan.status();
    if (*scan == nullptr) return false;
    scan_ = *std::move(scan);
  }
  const absl::Status status = scan_->done() ? absl::OkStatus() : scan_->Next();
  if (!scan_->done()) return false;
  // Until the scan ends, nobody tracks another working set.
  const std::shared_ptr<const mmu::WorkingSet> working_set =
      scan_->forgotten() ? nullptr : vm_.FindWorkingSet();
  scan_.reset();
  if (!status.ok()) return status;
  if (working_set != nullptr) NoteEnd(working_set);
  return working_set != nullptr;
}

void Ager::NoteEnd(const std::shared_ptr<const mmu::WorkingSet>& working_set) {
  const absl::optional<mmu::WorkingSetSnapshot> snapshot =
      sizes_.Measure(working_set);
  // Without memory for it the interval stays, and the sizes are the former.
  if (!snapshot.has_value()) return;
  absl::MutexLock lock(&mu_);
  state_.changed_ratio = ChangedRatio(*snapshot);
  state_.interval =
      NextInterval(std::max(state_.interval, state_.settings.min_interval),
                   state_.changed_ratio, state_.settings);
}

}  // namespace mmud
