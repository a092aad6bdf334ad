// The order in which a split goes through memory: by address, or by what the
// working set and the dirty log know of it.

#ifndef MMU_CORE_VM_JOBS_SPLIT_ORDER_H_
#define MMU_CORE_VM_JOBS_SPLIT_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {

struct VmCore;

enum class SplitOrder : uint8_t {
  kAscending,
  kDescending,
  // By the age of each 2 MiB: memory that was never found young first, that of
  // the newest generation last. What the guest uses stays huge for as long as
  // possible.
  kColdestFirst,
  // First the blocks of 2 MiB with pages that the dirty log has not delivered,
  // then the others; both from the newest generation to the oldest. What the
  // guest writes to is split before its writes are. Without a dirty log: by age
  // alone.
  kHottestDirtyFirst,
};

// Whether an order needs a working set.
constexpr bool IsByHeat(SplitOrder order) {
  return order == SplitOrder::kColdestFirst ||
         order == SplitOrder::kHottestDirtyFirst;
}

// What is to be split. A value.
struct OrderedRanges {
  // In the order of the split. Each is gone through in the order of its gfns,
  // with kDescending from its end.
  std::vector<GfnRange> ranges;
  uint64_t cold_pages = 0;  // left out as cold
};

// Puts `ranges`, which ascend and do not overlap, in order, by what is known
// now. Leaves blocks of 2 MiB out that are cold (vm/jobs/cold_memory.h) for
// `cold_after`, if that is given. For these two, passes over the generations of
// all pages. Memory that no generation has seen yet was never found young.
//   FAILED_PRECONDITION NO_GENERATION  the order, or `cold_after`, needs a
//                                      working set, and the VM has none
absl::StatusOr<OrderedRanges> OrderForSplit(
    const VmCore& vm, std::vector<GfnRange> ranges, SplitOrder order,
    absl::optional<absl::Duration> cold_after);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_SPLIT_ORDER_H_
