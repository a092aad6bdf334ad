// Asking which pages of a VM's memory are young.

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

// What to ask. The ranges may touch, overlap and be in any order; each begins
// and ends on a multiple of the granularity.
struct AgePlan {
  mmu::AgeMode mode = mmu::AgeMode::kTest;
  mmu::Level granularity = mmu::Level::k4K;
  std::vector<mmu::GfnRange> ranges;
  // Of all memslots those that go meanwhile are left out.
  mmu::MissingSlots missing = mmu::MissingSlots::kRefuse;
};

struct AgedRanges {
  // By range: bit i (of byte i / 8, the lowest first) is set if a page of its
  // unit i is young.
  std::vector<std::string> bitmaps;
  uint64_t young_page_count = 0;
  uint64_t old_page_count = 0;
  bool was_fast = false;
  mmu::MmuCost cost;
};

// Ages piece by piece. `keep_going` is asked before each piece, its error is
// returned, and `part_done` is called after each: with kTestAndClear what was
// aged stays aged.
struct AgeCalls {
  std::function<absl::Status()> keep_going;
  std::function<void()> part_done;
};
// Also the errors of mmu::AgeSweep.
absl::StatusOr<AgedRanges> AgeRanges(ManagedVm& vm, const AgePlan& plan,
                                     const AgeCalls& calls);

}  // namespace mmud

#endif  // SERVER_CONTROL_AGE_RANGES_H_
