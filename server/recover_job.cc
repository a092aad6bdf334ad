#include "server/recover_job.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"

namespace mmud {

RecoverJob::RecoverJob(mmu::Vm& vm, const std::vector<mmu::GfnRange>& ranges)
    : vm_(vm), pieces_(CutAtGigabytes(ranges)) {
  for (const mmu::GfnRange& piece : pieces_) {
    progress_.total_bytes += static_cast<int64_t>(piece.bytes());
  }
}

absl::Status RecoverJob::Run() {
  for (const mmu::GfnRange& piece : pieces_) {
    if (progress().cancelled) return absl::OkStatus();
    mmu::MmuCost cost;
    const absl::StatusOr<mmu::Vm::Recovered> recovered =
        vm_.RecoverHugePages({piece}, &cost);
    if (!recovered.ok()) return recovered.status();
    absl::MutexLock lock(&mu_);
    progress_.recovered.to_2m_count += recovered->to_2m_count;
    progress_.recovered.to_1g_count += recovered->to_1g_count;
    progress_.done_bytes += static_cast<int64_t>(piece.bytes());
    progress_.cost.Add(cost);
  }
  return absl::OkStatus();
}

void RecoverJob::Cancel() {
  absl::MutexLock lock(&mu_);
  // A job that is through is no longer cancelled.
  if (progress_.done_bytes < progress_.total_bytes) progress_.cancelled = true;
}

RecoverJob::Progress RecoverJob::progress() const {
  absl::MutexLock lock(&mu_);
  return progress_;
}

std::vector<mmu::GfnRange> CutAtGigabytes(
    const std::vector<mmu::GfnRange>& ranges) {
  std::vector<mmu::GfnRange> pieces;
  for (const mmu::GfnRange& range : ranges) {
    for (mmu::Gfn at = range.start; at < range.end;) {
      const mmu::Gfn next =
          mmu::RoundDown(at, mmu::Level::k1G) + mmu::PagesPer(mmu::Level::k1G);
      pieces.push_back({at, std::min(next, range.end)});
      at = next;
    }
  }
  return pieces;
}

}  // namespace mmud
