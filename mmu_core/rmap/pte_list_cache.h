// A stock of descriptors for lists of SPTEs, filled before mmu_lock is taken so
// that nothing is allocated under it (SHD-19, SHD-75, LCK-01).

#ifndef MMU_CORE_RMAP_PTE_LIST_CACHE_H_
#define MMU_CORE_RMAP_PTE_LIST_CACHE_H_

#include "absl/status/status.h"
#include "mmu_core/base/level.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"

namespace mmu {

// How many descriptors a cache must hold before an operation takes mmu_lock,
// and how many it is filled to when it holds fewer.
struct PteListNeed {
  int min;
  int capacity;
};

// A fault of a vCPU: its own leaf's rmap, the parent lists of five levels, the
// rmaps of eight leafs prefetched (SHD-19).
inline constexpr PteListNeed kFaultPteLists = {
    .min = 1 + ToInt(X86Geometry::kMaxLevel) + 8, .capacity = 40};
// The split of one huge SPTE: the rmaps of a table of small ones and the
// child's list of parents (SHD-75, SHD-76).
inline constexpr PteListNeed kSplitPteLists = {
    .min = kEntriesPerTable + 1, .capacity = kEntriesPerTable + 1 + 40};

// Externally synchronised: a vCPU's by its thread, that for splitting by
// slots_lock.
class PteListCache {
 public:
  explicit PteListCache(PteListPool& pool) : pool_(pool) {}
  ~PteListCache() { Clear(); }
  PteListCache(const PteListCache&) = delete;
  PteListCache& operator=(const PteListCache&) = delete;

  // Fills up to need.capacity if fewer than need.min are there. False if fewer
  // than need.min can be had; what was got is kept (SHD-81). Needs no other
  // memory. REQUIRES: MayFillFromPool() (sync/refill.h).
  bool TryTopUp(PteListNeed need);
  // The same for who tells somebody: RESOURCE_EXHAUSTED MMU_PAGES_EXHAUSTED
  // (ENOMEM), whose text is allocated.
  absl::Status TopUp(PteListNeed need);

  // REQUIRES: count() > 0. Contents are undefined.
  PteListDesc* Take();
  void Clear();

  int count() const { return count_; }

 private:
  PteListPool& pool_;
  PteListDesc* head_ = nullptr;
  int count_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_PTE_LIST_CACHE_H_
