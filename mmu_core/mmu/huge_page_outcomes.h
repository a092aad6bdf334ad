// The results of passes over huge pages, in the TDP MMU and in the shadow MMU.

#ifndef MMU_CORE_MMU_HUGE_PAGE_OUTCOMES_H_
#define MMU_CORE_MMU_HUGE_PAGE_OUTCOMES_H_

#include <cstdint>

#include "mmu_core/base/address.h"

namespace mmu {

// The result of a splitting pass, and where it stopped.
struct SplitOutcome {
  int64_t split_1g_count = 0;
  int64_t split_2m_count = 0;
  int64_t raced_count = 0;  // lost compare-exchanges, retried (TDP-64)
  // TDP MMU: the pass stopped for lack of a table, because the host has no
  // memory or the limit on tables is reached (TDP-63). Shadow MMU: the number
  // of gfns left huge for that reason (SHD-73).
  int64_t no_memory_count = 0;
  int64_t limit_count = 0;
  Gfn next_gfn;  // the first gfn that was not visited
  // EnableLog: the slot's translations were flushed after it was protected.
  bool flushed = false;
  // The monotonic time at which mmu_lock was acquired; 0: it was not taken.
  int64_t locked_at_nanos = 0;

  // Whether the pass stopped because its hold of mmu_lock reached the limit.
  bool StoppedBefore(Gfn end) const {
    return no_memory_count + limit_count == 0 && next_gfn < end;
  }
  // Adds the counts of another MMU for the same range; next_gfn stays.
  void AddCounts(const SplitOutcome& other) {
    split_1g_count += other.split_1g_count;
    split_2m_count += other.split_2m_count;
    raced_count += other.raced_count;
    no_memory_count += other.no_memory_count;
    limit_count += other.limit_count;
  }
};

// Huge pages that replaced smaller ones, or can do so from the next access on.
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
