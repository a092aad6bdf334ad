// The counters of one vCPU. Only its own thread writes them, so a bump is a
// load and a store; anybody may read them, and sees a wait while it lasts.

#ifndef MMU_CORE_STATS_VCPU_STATS_H_
#define MMU_CORE_STATS_VCPU_STATS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"

namespace mmu {

// A number that one thread adds to and others read. All accesses are relaxed:
// it orders nothing.
class OwnedCounter {
 public:
  void Add(int64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n,
                 std::memory_order_relaxed);
  }
  int64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// The time that one thread has spent waiting for something that may never come.
// Others see it grow while the thread waits, and never shrink: the clock is
// read under the lock, so whoever looks later sees a later time. Begin and End
// are for the thread that waits, the rest for anybody.
class WaitTime {
 public:
  explicit WaitTime(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // REQUIRES: it does not wait.
  void Begin();
  // REQUIRES: it waits.
  void End();

  bool waiting() const;
  // Since when it waits; none if it does not.
  absl::optional<MonotonicTime> since() const;
  // The wait that goes on included.
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
  int64_t begin_nanos_ ABSL_GUARDED_BY(mu_) = 0;  // if it waits
};

// Written by the vCPU's thread, read by anybody.
class VcpuStats {
 public:
  enum class FaultPath : uint8_t { kSlow, kFast };

  // A fault in the tables of `mmu` came to an end: without mmu_lock, or else.
  void CountFault(MmuKind mmu, FaultResult result, AccessKind kind,
                  FaultPath path) {
    FaultCounters& faults = faults_[static_cast<int>(mmu)];
    auto& of_path = path == FaultPath::kFast ? faults.fast : faults.slow;
    of_path[static_cast<int>(result)][static_cast<int>(kind)].Add();
  }
  // The host could not serve it.
  void CountFaultError(MmuKind mmu, AccessKind kind) {
    faults_[static_cast<int>(mmu)].errors[static_cast<int>(kind)].Add();
  }
  // How long it stood still, but for ring_full_wait.
  void AddStall(StallCause cause, int64_t nanos) {
    stall_nanos_[static_cast<int>(cause)].Add(nanos);
  }
  // All causes together, nanoseconds.
  int64_t StallNanos() const;

  OwnedCounter pf_mmio_spte_created, pf_guest, tlb_flush, invlpg;
  OwnedCounter accesses, writes, dirty_pages, dirty_log_faults;
  OwnedCounter ring_full_exits;
  WaitTime ring_full_wait;  // the stall of StallCause::kRingFull
  LatencyHistogram fault_fast, fault_slow;

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
