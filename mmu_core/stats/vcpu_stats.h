// The counters of one vCPU. Only its own thread writes them, so an increment is
// a load and a store. Any thread may read them; the time of a wait is counted
// while the wait lasts.

#ifndef MMU_CORE_STATS_VCPU_STATS_H_
#define MMU_CORE_STATS_VCPU_STATS_H_

#include <array>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_counters.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"

namespace mmu {

// Total time that a thread has waited, including the current wait, which may
// never end. A reader never sees the time shrink: the clock is read under the
// lock, so a later reading is of a later time. Only the thread that waits calls
// Begin and End; any thread calls the other functions.
class WaitTime {
 public:
  explicit WaitTime(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // REQUIRES: !waiting().
  void Begin();
  // REQUIRES: waiting().
  void End();

  bool waiting() const;
  // The beginning of the current wait; none without a wait.
  absl::optional<MonotonicTime> since() const;
  // The total time, including the current wait.
  int64_t nanos() const;

  // A wait for a scope.
  class Scope {
   public:
    explicit Scope(WaitTime& wait) : wait_(wait) { wait_.Begin(); }
    ~Scope() { wait_.End(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WaitTime& wait_;
  };

 private:
  const Clock& clock_;
  mutable Mutex mu_;  // leaf
  int64_t ended_nanos_ ABSL_GUARDED_BY(mu_) = 0;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  int64_t begin_nanos_ ABSL_GUARDED_BY(mu_) = 0;  // while waiting_
};

// Written by the vCPU's thread, read by any thread.
class VcpuStats : public VcpuCounters {
 public:
  enum class FaultPath : uint8_t { kSlow, kFast };

  // Counts a finished fault in the tables of `mmu`. kFast: handled without
  // mmu_lock.
  void CountFault(MmuKind mmu, FaultResult result, AccessKind kind,
                  FaultPath path) {
    FaultCounters& faults = faults_[static_cast<int>(mmu)];
    auto& of_path = path == FaultPath::kFast ? faults.fast : faults.slow;
    of_path[static_cast<int>(result)][static_cast<int>(kind)].Add();
  }
  // Counts a fault that the host could not serve.
  void CountFaultError(MmuKind mmu, AccessKind kind) {
    faults_[static_cast<int>(mmu)].errors[static_cast<int>(kind)].Add();
  }
  // Adds to the stall time of any cause but kRingFull, which has
  // ring_full_wait.
  void AddStall(StallCause cause, int64_t nanos) {
    stall_nanos_[static_cast<int>(cause)].Add(nanos);
  }
  // The stall time of all causes together, in nanoseconds.
  int64_t StallNanos() const;

  WaitTime ring_full_wait;  // the stall of StallCause::kRingFull

  VcpuStatsSnapshot Snapshot() const;

 private:
  void AddFaults(MmuKind mmu, VcpuStatsSnapshot& s) const;

  struct FaultCounters {
    std::array<std::array<OwnedCounter, kAccessKinds>, kFaultResults> slow;
    std::array<std::array<OwnedCounter, kAccessKinds>, kFaultResults> fast;
    std::array<OwnedCounter, kAccessKinds> errors;
  };

  std::array<FaultCounters, kMmuKinds> faults_;
  std::array<OwnedCounter, kStallCauses> stall_nanos_;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VCPU_STATS_H_
