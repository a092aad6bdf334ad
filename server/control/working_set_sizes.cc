#include "server/control/working_set_sizes.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmud {

absl::optional<mmu::WorkingSetSnapshot> WorkingSetSizes::Measure(
    const std::shared_ptr<const mmu::WorkingSet>& working_set) {
  std::array<int64_t, kWorkingSetWindows.size()> windows{};
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i] = kWorkingSetWindows[i].nanos;
  }
  absl::optional<mmu::WorkingSetSnapshot> now;
  const bool enough = mmu::TryWithMemory([&] {
    now = working_set->TakeSnapshot(mmu::MonotonicNanos(), windows);
    return true;
  });
  if (!enough) return absl::nullopt;
  WorkingSetBytes bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = now->windows[i].bytes();
  absl::MutexLock lock(&mu_);
  working_set_ = working_set;
  bytes_ = bytes;
  return now;
}

absl::optional<WorkingSetBytes> WorkingSetSizes::Get(
    const std::shared_ptr<const mmu::WorkingSet>& working_set) const {
  absl::MutexLock lock(&mu_);
  if (working_set == nullptr || working_set_.lock() != working_set) {
    return absl::nullopt;
  }
  return bytes_;
}

}  // namespace mmud
