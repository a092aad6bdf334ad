#include "server/control/ager.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
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
  if (young + young_before == 0) return absl::nullopt;
  // The pages of the generation before that are still in its bin: the newest
  // one did not find them young.
  const auto left =
      std::min(static_cast<double>(now.bins[newest + 1].pages), young_before);
  const double came = std::max(young - (young_before - left), 0.0);
  // Of all pages that either generation found young.
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

AgerSettings Ager::settings() const {
  absl::MutexLock lock(&mu_);
  return state_.settings;
}

Ager::Outcome Ager::Step(mmu::MonotonicTime now) {
  Outcome outcome;
  const AgerSettings settings = this->settings();
  if (!settings.enabled) {
    scan_.reset();  // its generation is incomplete
    due_ = mmu::MonotonicTime::InfinitePast();
    return outcome;
  }
  // A shorter interval takes effect now.
  const mmu::MonotonicTime latest = began_ + settings.max_interval;
  outcome.due = scan_ == nullptr ? std::min(due_, latest) : due_;
  if (now < outcome.due) return outcome;

  const absl::Duration begin = ThreadCpuTime();
  const bool begins = scan_ == nullptr;
  if (begins) began_ = now;
  const absl::Status status = Work();
  outcome.failed = !status.ok();
  outcome.ended_generation = status.ok() && scan_ == nullptr;
  if (outcome.ended_generation) NoteEnd(settings);
  outcome.cpu_time = ThreadCpuTime() - begin;

  absl::MutexLock lock(&mu_);
  state_.cpu_time += outcome.cpu_time;
  state_.generations += outcome.ended_generation ? 1 : 0;
  state_.failures += outcome.failed ? 1 : 0;
  state_.last_error = std::string(status.message());
  due_ = now + outcome.cpu_time +
         PauseForBudget(outcome.cpu_time, settings.cpu_percent);
  if (scan_ == nullptr) {
    due_ = std::max(due_,
                    began_ + std::clamp(state_.interval, settings.min_interval,
                                        settings.max_interval));
  }
  outcome.due = due_;
  return outcome;
}

absl::Status Ager::Work() {
  if (scan_ == nullptr) {
    absl::StatusOr<std::unique_ptr<mmu::GenerationScan>> scan =
        vm_.BeginGeneration(settings().options);
    if (!scan.ok()) return scan.status();
    scan_ = *std::move(scan);
  }
  absl::Status status;
  if (!scan_->done()) status = scan_->Next();
  if (scan_->done()) scan_.reset();
  return status;
}

void Ager::NoteEnd(const AgerSettings& settings) {
  const auto working_set = vm_.FindWorkingSet();
  if (working_set == nullptr) return;
  const mmu::WorkingSetSnapshot snapshot = SnapshotForMetrics(*working_set);
  sizes_.Set(snapshot);
  absl::MutexLock lock(&mu_);
  state_.changed_ratio = ChangedRatio(snapshot);
  state_.interval =
      NextInterval(std::max(state_.interval, settings.min_interval),
                   state_.changed_ratio, settings);
}

}  // namespace mmud
