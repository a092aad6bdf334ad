// The cost of one operation on an MMU. Each such operation returns it, so that
// its caller can pace itself.

#ifndef MMU_CORE_STATS_MMU_COST_H_
#define MMU_CORE_STATS_MMU_COST_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace mmu {

// A value; filled by one thread.
struct MmuCost {
  absl::Duration wall;             // from the first to the last step
  absl::Duration lock_wait;        // sum of waits for mmu_lock
  absl::Duration max_lock_hold;    // longest single hold of mmu_lock
  int64_t tlb_flush_count = 0;     // remote TLB flush requests issued
  int64_t vcpus_kicked_count = 0;  // vCPUs interrupted by those flushes
  int64_t sptes_visited_count = 0;

  void Add(const MmuCost& other) {
    wall += other.wall;
    lock_wait += other.lock_wait;
    max_lock_hold = std::max(max_lock_hold, other.max_lock_hold);
    tlb_flush_count += other.tlb_flush_count;
    vcpus_kicked_count += other.vcpus_kicked_count;
    sptes_visited_count += other.sptes_visited_count;
  }
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_MMU_COST_H_
