#include "mmu_core/stats/vcpu_stats.h"

#include <cstdint>
#include <numeric>

#include "mmu_core/stats/counter_table.h"

namespace mmu {
namespace {

// Of a fault that took mmu_lock, or did not need it.
FaultOutcome OutcomeOf(FaultResult result) {
  switch (result) {
    case FaultResult::kFixed:
      return FaultOutcome::kFixed;
    case FaultResult::kSpurious:
      return FaultOutcome::kSpurious;
    case FaultResult::kEmulate:
    case FaultResult::kWriteProtected:
      return FaultOutcome::kEmulate;
    case FaultResult::kContinue:
    case FaultResult::kInvalid:  // inside the handler only
    case FaultResult::kRetry:
      break;
  }
  return FaultOutcome::kRetry;
}

}  // namespace

void WaitTime::Begin() {
  MutexLock lock(mu_);
  waiting_ = true;
  begin_nanos_ = clock_.NowNanos();
}

void WaitTime::End() {
  MutexLock lock(mu_);
  waiting_ = false;
  ended_nanos_ += clock_.NowNanos() - begin_nanos_;
}

bool WaitTime::waiting() const {
  MutexLock lock(mu_);
  return waiting_;
}

absl::optional<MonotonicTime> WaitTime::since() const {
  MutexLock lock(mu_);
  if (!waiting_) return absl::nullopt;
  return MonotonicTime::FromNanos(begin_nanos_);
}

int64_t WaitTime::nanos() const {
  MutexLock lock(mu_);
  return ended_nanos_ + (waiting_ ? clock_.NowNanos() - begin_nanos_ : 0);
}

int64_t VcpuStats::StallNanos() const {
  int64_t sum = ring_full_wait.nanos();
  for (const OwnedCounter& nanos : stall_nanos_) sum += nanos.Get();
  return sum;
}

VcpuStatsSnapshot VcpuStats::Snapshot() const {
  VcpuStatsSnapshot s;
  CopyCounters(*this, &s);
  for (int m = 0; m < kMmuKinds; ++m) AddFaults(static_cast<MmuKind>(m), s);
  const auto sum = [&s](FaultResult result) {
    const auto& by_kind = s.faults[static_cast<int>(result)];
    return std::accumulate(by_kind.begin(), by_kind.end(), uint64_t{0});
  };
  s.pf_fixed = sum(FaultResult::kFixed);
  s.pf_emulate = sum(FaultResult::kEmulate);
  s.pf_spurious = sum(FaultResult::kSpurious);
  s.pf_retried = sum(FaultResult::kRetry);
  for (int c = 0; c < kStallCauses; ++c) {
    s.stall_nanos[c] = static_cast<uint64_t>(stall_nanos_[c].Get());
  }
  s.stall_nanos[static_cast<int>(StallCause::kRingFull)] =
      static_cast<uint64_t>(ring_full_wait.nanos());
  return s;
}

void VcpuStats::AddFaults(MmuKind mmu, VcpuStatsSnapshot& s) const {
  const FaultCounters& counters = faults_[static_cast<int>(mmu)];
  auto& outcomes = s.page_faults[static_cast<int>(mmu)];
  for (int k = 0; k < kAccessKinds; ++k) {
    for (int r = 0; r < kFaultResults; ++r) {
      const auto result = static_cast<FaultResult>(r);
      const uint64_t slow = counters.slow[r][k].Get();
      const uint64_t fast = counters.fast[r][k].Get();
      s.faults[r][k] += slow + fast;
      s.slow_faults[r][k] += slow;
      s.pf_fast += fast;
      s.pf_taken += slow + fast;
      outcomes[static_cast<int>(OutcomeOf(result))][k] += slow;
      outcomes[static_cast<int>(result == FaultResult::kFixed
                                    ? FaultOutcome::kFast
                                    : OutcomeOf(result))][k] += fast;
    }
    const uint64_t errors = counters.errors[k].Get();
    s.fault_errors += errors;
    s.pf_taken += errors;
    outcomes[static_cast<int>(FaultOutcome::kError)][k] += errors;
  }
}

}  // namespace mmu
