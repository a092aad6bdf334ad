#include "server/control/working_set_sizes.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/base/check.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmud {

mmu::WorkingSetSnapshot SnapshotForMetrics(const mmu::WorkingSet& working_set) {
  std::array<int64_t, kWorkingSetWindows.size()> windows{};
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i] = kWorkingSetWindows[i].nanos;
  }
  return working_set.TakeSnapshot(mmu::MonotonicNanos(), windows);
}

void WorkingSetSizes::Set(const mmu::WorkingSetSnapshot& now) {
  MMU_CHECK(now.windows.size() == kWorkingSetWindows.size());
  WorkingSetBytes bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = now.windows[i].bytes();
  absl::MutexLock lock(&mu_);
  bytes_ = bytes;
}

void WorkingSetSizes::Forget() {
  absl::MutexLock lock(&mu_);
  bytes_ = absl::nullopt;
}

absl::optional<WorkingSetBytes> WorkingSetSizes::Get() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

}  // namespace mmud
