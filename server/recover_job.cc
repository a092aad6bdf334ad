#include "server/recover_job.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/throttle_pause.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"

namespace mmud {
namespace {

std::vector<mmu::GfnRange> PiecesOf(const mmu::Vm& vm,
                                    const std::vector<mmu::GfnRange>& ranges,
                                    const mmu::Throttle& throttle) {
  const auto chunk =
      static_cast<uint64_t>(throttle.chunk_bytes) >> mmu::kPageShift;
  const uint64_t gib = mmu::PagesPer(mmu::Level::k1G);
  std::vector<mmu::MemslotInfo> slots = vm.Memslots();
  std::sort(slots.begin(), slots.end(), [](const auto& a, const auto& b) {
    return a.config.gpa < b.config.gpa;
  });
  std::vector<mmu::GfnRange> pieces;
  for (const mmu::GfnRange& range : ranges) {
    for (const mmu::MemslotInfo& slot : slots) {
      const mmu::GfnRange part = range.Intersect(
          mmu::GfnRange::Of(mmu::ToGfn(slot.config.gpa),
                            slot.config.size_bytes >> mmu::kPageShift));
      if (part.empty()) continue;
      const bool may_be_1g =
          std::min(slot.config.host_page_level, vm.config().max_page_level) >=
          mmu::Level::k1G;
      for (const mmu::GfnRange& piece :
           CutAt({part}, may_be_1g ? gib : chunk)) {
        pieces.push_back(piece);
      }
    }
  }
  return pieces;
}

}  // namespace

RecoverJob::RecoverJob(mmu::Vm& vm, const std::vector<mmu::GfnRange>& ranges,
                       const mmu::Throttle& throttle)
    : vm_(vm), throttle_(throttle), pieces_(PiecesOf(vm, ranges, throttle)) {
  for (const mmu::GfnRange& piece : pieces_) {
    progress_.total_bytes += static_cast<int64_t>(piece.bytes());
  }
}

absl::Status RecoverJob::Run() {
  for (const mmu::GfnRange& piece : pieces_) {
    if (progress().cancelled) return absl::OkStatus();
    mmu::MmuCost cost;
    const int64_t stalled = StallNanos();
    const absl::StatusOr<mmu::Vm::Recovered> recovered =
        vm_.RecoverHugePages({piece}, &cost, throttle_.max_lock_hold);
    if (!recovered.ok()) return recovered.status();
    const mmu::ThrottlePause pause =
        mmu::PauseAfter({.bytes = static_cast<int64_t>(piece.bytes()),
                         .tlb_flushes = cost.tlb_flush_count,
                         .wall = cost.wall,
                         .stalled = absl::Nanoseconds(StallNanos() - stalled) /
                                    vm_.config().vcpu_count},
                        throttle_);
    {
      mmu::MutexLock lock(mu_);
      progress_.recovered.to_2m_count += recovered->to_2m_count;
      progress_.recovered.to_1g_count += recovered->to_1g_count;
      progress_.done_bytes += static_cast<int64_t>(piece.bytes());
      progress_.cost.Add(cost);
    }
    Sleep(pause);
  }
  return absl::OkStatus();
}

int64_t RecoverJob::StallNanos() const {
  // Only asked for where it counts: it looks at every vCPU.
  if (throttle_.max_vcpu_stall_ratio == 0) return 0;
  int64_t sum = 0;
  for (const mmu::VcpuStatsSnapshot& vcpu : vm_.VcpuStats()) {
    for (const int64_t nanos : vcpu.stall_nanos) sum += nanos;
  }
  return sum;
}

void RecoverJob::Sleep(const mmu::ThrottlePause& pause) {
  if (pause.length <= absl::ZeroDuration()) return;
  const mmu::MonotonicTime begin = mmu::MonotonicTime::Now();
  mmu::MutexLock lock(mu_);
  while (!progress_.cancelled &&
         mmu::WaitUntil(cancelled_, mu_, begin + pause.length)) {
  }
  progress_.throttled[static_cast<size_t>(pause.limit)] +=
      mmu::MonotonicTime::Now() - begin;
}

void RecoverJob::Cancel() {
  mmu::MutexLock lock(mu_);
  // A job that is through is no longer cancelled.
  if (progress_.done_bytes < progress_.total_bytes) progress_.cancelled = true;
  cancelled_.NotifyAll();
}

RecoverJob::Progress RecoverJob::progress() const {
  mmu::MutexLock lock(mu_);
  return progress_;
}

std::vector<mmu::GfnRange> CutAt(const std::vector<mmu::GfnRange>& ranges,
                                 uint64_t pages) {
  std::vector<mmu::GfnRange> pieces;
  for (const mmu::GfnRange& range : ranges) {
    for (mmu::Gfn at = range.start; at < range.end;) {
      const mmu::Gfn next((at.value() / pages + 1) * pages);
      pieces.push_back({at, std::min(next, range.end)});
      at = next;
    }
  }
  return pieces;
}

}  // namespace mmud
