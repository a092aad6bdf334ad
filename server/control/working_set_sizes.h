// The sizes of a VM's working set for /metrics.

#ifndef SERVER_CONTROL_WORKING_SET_SIZES_H_
#define SERVER_CONTROL_WORKING_SET_SIZES_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmud {

// A window of time with the value of its metrics label.
struct WorkingSetWindowLabel {
  int64_t nanos;
  const char* label;
};
inline constexpr std::array<WorkingSetWindowLabel, 3> kWorkingSetWindows = {{
    {int64_t{60} * 1'000'000'000, "1m"},
    {int64_t{600} * 1'000'000'000, "10m"},
    {int64_t{3600} * 1'000'000'000, "1h"},
}};
// Bytes, in the order of kWorkingSetWindows.
using WorkingSetBytes = std::array<uint64_t, kWorkingSetWindows.size()>;

// Keeps the sizes that the last generation left, since a scrape should not pass
// over all pages. Thread-safe.
class WorkingSetSizes {
 public:
  // To be called after each generation, with the VM's working set. Passes over
  // the generations of all pages and returns what it found. Nullopt without
  // memory for it: then the former sizes stay.
  absl::optional<mmu::WorkingSetSnapshot> Measure(
      const std::shared_ptr<const mmu::WorkingSet>& working_set);
  // The sizes of `working_set`, which the VM has now, or null. Nullopt before
  // its first generation has ended.
  absl::optional<WorkingSetBytes> Get(
      const std::shared_ptr<const mmu::WorkingSet>& working_set) const;

 private:
  mutable absl::Mutex mu_;
  // A working set that was forgotten does not live on for its sizes.
  std::weak_ptr<const mmu::WorkingSet> working_set_ ABSL_GUARDED_BY(mu_);
  absl::optional<WorkingSetBytes> bytes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_WORKING_SET_SIZES_H_
