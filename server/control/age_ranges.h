// Finds the young pages of a VM's memory.

#ifndef SERVER_CONTROL_AGE_RANGES_H_
#define SERVER_CONTROL_AGE_RANGES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "server/control/managed_vm.h"

namespace mmud {

// The ranges to age. They may touch, overlap and be in any order; each begins
// and ends on a multiple of the granularity.
struct AgePlan {
  mmu::AgeMode mode = mmu::AgeMode::kTest;
  mmu::Level granularity = mmu::Level::k4K;
  std::vector<mmu::GfnRange> ranges;
  // For a sweep of all memslots: slots that are deleted meanwhile are left out.
  mmu::MissingSlots missing = mmu::MissingSlots::kRefuse;
  mmu::AgeOptions options;
};

struct AgedRanges {
  // One bitmap per range: bit i (of byte i / 8, the lowest first) is set if
  // unit i of the range has a young page.
  std::vector<std::string> bitmaps;
  uint64_t young_page_count = 0;
  uint64_t old_page_count = 0;
  mmu::AgeReach reach;
  mmu::MmuCost cost;
};

// Ages piece by piece. `keep_going` is called before each piece; its error is
// returned. `part_done` is called after each piece: with kTestAndClear the aged
// pages stay aged.
struct AgeCalls {
  std::function<absl::Status()> keep_going;
  std::function<void()> part_done;
};
// Errors: those of `keep_going` and of mmu::AgeSweep.
absl::StatusOr<AgedRanges> AgeRanges(ManagedVm& vm, const AgePlan& plan,
                                     const AgeCalls& calls);

}  // namespace mmud

#endif  // SERVER_CONTROL_AGE_RANGES_H_
