// What passes over huge pages did, in the TDP MMU and in the shadow MMU.

#ifndef MMU_CORE_MMU_HUGE_PAGE_OUTCOMES_H_
#define MMU_CORE_MMU_HUGE_PAGE_OUTCOMES_H_

#include <cstdint>

#include "mmu_core/base/address.h"

namespace mmu {

// What a pass of splitting did, and where it stopped.
struct SplitOutcome {
  int64_t split_1g_count = 0;
  int64_t split_2m_count = 0;
  int64_t raced_count = 0;  // compare-exchanges lost and tried again (TDP-64)
  // A table was not to be had, as the host has no memory or as the limit on
  // tables is reached, and the pass stopped (TDP-63); of the shadow MMU, gfns
  // that were left huge for that (SHD-73).
  int64_t no_memory_count = 0;
  int64_t limit_count = 0;
  Gfn next_gfn;  // the first gfn not looked at
  // When mmu_lock was held, by the monotonic clock; 0: nothing took it.
  int64_t locked_at_nanos = 0;

  // The pass stopped because it had held mmu_lock for as long as it was to.
  bool StoppedBefore(Gfn end) const {
    return no_memory_count + limit_count == 0 && next_gfn < end;
  }
  // Adds what another MMU did to the same range; next_gfn stays.
  void AddCounts(const SplitOutcome& other) {
    split_1g_count += other.split_1g_count;
    split_2m_count += other.split_2m_count;
    raced_count += other.raced_count;
    no_memory_count += other.no_memory_count;
    limit_count += other.limit_count;
  }
};

// Huge pages that took the place of smaller ones, or can from the next access
// on.
struct RecoverOutcome {
  uint64_t to_2m_count = 0;
  uint64_t to_1g_count = 0;

  RecoverOutcome& operator+=(const RecoverOutcome& other) {
    to_2m_count += other.to_2m_count;
    to_1g_count += other.to_1g_count;
    return *this;
  }
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_HUGE_PAGE_OUTCOMES_H_
