// A stock of descriptors for lists of SPTEs, filled before mmu_lock is taken so
// that nothing is allocated under the lock (SHD-19, SHD-75, LCK-01).

#ifndef MMU_CORE_RMAP_PTE_LIST_CACHE_H_
#define MMU_CORE_RMAP_PTE_LIST_CACHE_H_

#include "absl/status/status.h"
#include "mmu_core/base/level.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"

namespace mmu {

// The minimum number of descriptors in a cache before an operation takes
// mmu_lock, and the number that a cache with fewer is filled to.
struct PteListNeed {
  int min;
  int capacity;
};

// The need of a vCPU's fault: the rmap of its own leaf, the parent lists of
// five levels, the rmaps of eight prefetched leafs (SHD-19).
inline constexpr PteListNeed kFaultPteLists = {
    .min = 1 + ToInt(X86Geometry::kMaxLevel) + 8, .capacity = 40};
// The need of the split of one huge SPTE: the rmaps of a table of small SPTEs,
// and the child's parent list (SHD-75, SHD-76).
inline constexpr PteListNeed kSplitPteLists = {
    .min = kEntriesPerTable + 1, .capacity = kEntriesPerTable + 1 + 40};

// Externally synchronised: a vCPU's cache by its thread, the cache for
// splitting by slots_lock.
class PteListCache {
 public:
  explicit PteListCache(PteListPool& pool) : pool_(pool) {}
  ~PteListCache() { Clear(); }
  PteListCache(const PteListCache&) = delete;
  PteListCache& operator=(const PteListCache&) = delete;

  // Fills up to need.capacity if the cache has fewer than need.min. Returns
  // false if fewer than need.min are available; the cache keeps those it got
  // (SHD-81). Allocates no other memory. REQUIRES: MayFillFromPool()
  // (sync/refill.h).
  bool TryTopUp(PteListNeed need);
  // The same for callers that report the error: RESOURCE_EXHAUSTED
  // MMU_PAGES_EXHAUSTED (ENOMEM). Allocates the error's text.
  absl::Status TopUp(PteListNeed need);

  // REQUIRES: count() > 0. Contents are undefined.
  PteListDesc* Take();
  void Clear();

  int count() const { return count_; }
  // For the auditor: the number of descriptors in the chain, or count() + 1 if
  // there are more.
  int CountChain() const;

 private:
  PteListPool& pool_;
  PteListDesc* head_ = nullptr;
  int count_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_PTE_LIST_CACHE_H_
