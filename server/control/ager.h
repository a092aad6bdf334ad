// Makes generations of a VM's working set in the background.

#ifndef SERVER_CONTROL_AGER_H_
#define SERVER_CONTROL_AGER_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "server/control/working_set_sizes.h"

namespace mmud {

// A value.
struct AgerSettings {
  bool enabled = false;
  int cpu_percent = 2;  // of one processor, 1 to 100
  absl::Duration min_interval = absl::Seconds(1);
  absl::Duration max_interval = absl::Minutes(1);
  mmu::GenerationOptions options;
};

// The limits of both intervals.
inline constexpr absl::Duration kShortestAgerInterval = absl::Milliseconds(100);
inline constexpr absl::Duration kLongestAgerInterval = absl::Hours(1);

// A value.
struct AgerState {
  AgerSettings settings;
  // From the begin of one generation to that of the next.
  absl::Duration interval;
  // See ChangedRatio.
  absl::optional<double> changed_ratio;
  uint64_t generations = 0;
  uint64_t failures = 0;
  absl::Duration cpu_time;
  absl::Status last_error;  // OK if the last attempt succeeded
};

// The share of the pages that the last two ended generations of `now` found
// young that only one of them found young. Nullopt if fewer have ended, or if
// nothing is left of what they found.
absl::optional<double> ChangedRatio(const mmu::WorkingSetSnapshot& now);

// The interval that follows `interval` if `changed` changed.
absl::Duration NextInterval(absl::Duration interval,
                            absl::optional<double> changed,
                            const AgerSettings& settings);

// Thread-safe, except that Step is called by one thread at a time. Must not
// outlive `vm` and `sizes`.
class Ager {
 public:
  Ager(mmu::Vm& vm, WorkingSetSizes& sizes) : vm_(vm), sizes_(sizes) {}

  AgerState state() const;
  // Changes the settings by `change`, atomically. If `change` returns an error,
  // that error is returned and nothing changes. Takes effect at the next Step.
  absl::Status Update(absl::FunctionRef<absl::Status(AgerSettings*)> change);
  // Switches the ager off and forgets the VM's working set, atomically: the
  // ager tracks nothing again until it is switched on. Waits for the begin of a
  // generation, but not for a scan.
  void ForgetWorkingSet();

  // What one step did, and when the next one is due. InfiniteFuture: when the
  // settings have changed.
  struct Outcome {
    mmu::MonotonicTime due = mmu::MonotonicTime::InfiniteFuture();
    absl::Duration cpu_time;
    bool ended_generation = false;
    bool failed = false;
  };
  // Does what is due at `now`: examines one GiB at most, and at the end of a
  // generation counts the pages of each.
  Outcome Step(mmu::MonotonicTime now);

 private:
  // When the next piece may be examined.
  mmu::MonotonicTime DueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Begins a generation. Null if the ager was switched off meanwhile.
  absl::StatusOr<std::unique_ptr<mmu::GenerationScan>> Begin();
  // Examines a piece, of a new generation if no scan goes on. Returns whether
  // that was the last one.
  absl::StatusOr<bool> Work();
  void NoteEnd(const std::shared_ptr<const mmu::WorkingSet>& working_set);

  mmu::Vm& vm_;
  WorkingSetSizes& sizes_;

  // Of the thread that calls Step.
  std::unique_ptr<mmu::GenerationScan> scan_;

  mutable absl::Mutex mu_;
  // When the last generation began; in the past while the ager is off.
  mmu::MonotonicTime began_ ABSL_GUARDED_BY(mu_) =
      mmu::MonotonicTime::InfinitePast();
  // Of the last piece. The pause after it belongs to the budget, also if the
  // ager is switched off and on in between.
  mmu::MonotonicTime piece_end_ ABSL_GUARDED_BY(mu_) =
      mmu::MonotonicTime::InfinitePast();
  absl::Duration piece_cpu_time_ ABSL_GUARDED_BY(mu_);
  // `interval` of a state that was not yet enabled: the minimum.
  AgerState state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_AGER_H_
