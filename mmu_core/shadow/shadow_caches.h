// The stocks from which shadow pages are made and linked, filled from pools
// before mmu_lock is taken (SHD-19, SHD-75, LCK-01).

#ifndef MMU_CORE_SHADOW_SHADOW_CACHES_H_
#define MMU_CORE_SHADOW_SHADOW_CACHES_H_

#include "absl/status/status.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/shadow/object_cache.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/shadow/shadow_page_state.h"

namespace mmu {

// The pools that fill the caches.
struct ShadowPools {
  TablePool& tables;
  ObjectPool& states;
  ObjectPool& translations;
  PteListPool& lists;

  // The pools that all VMs of the process share.
  static ShadowPools Process();
};

// Whether a vCPU may need pages that shadow a guest's tables.
enum class IndirectPages : uint8_t { kNone, kPossible };

// Externally synchronised: a vCPU's caches by its thread, those for splitting
// by slots_lock (LCK-05).
struct ShadowCaches {
  // The number of pages that one fault may need: one per level (SHD-19).
  static constexpr int kPagesPerFault = 5;

  explicit ShadowCaches(const ShadowPools& pools)
      : tables(pools.tables),
        states(pools.states),
        translations(pools.translations),
        lists(pools.lists) {}

  // Fills the caches for a fault, or for a root and the pages below it
  // (SHD-19). RESOURCE_EXHAUSTED (ENOMEM) if that fails; the caches keep what
  // they got. REQUIRES, like TryTopUpForSplit: MayFillFromPool()
  // (sync/refill.h).
  absl::Status TopUpForFault(IndirectPages indirect);
  // Whether TopUpForFault has work to do.
  bool NeedTopUpForFault(IndirectPages indirect) const {
    return lists.count() < kFaultPteLists.min ||
           tables.count() < kPagesPerFault || states.count() < kPagesPerFault ||
           (indirect == IndirectPages::kPossible &&
            translations.count() < kPagesPerFault);
  }
  // Fills the caches for the split of one huge SPTE, whose child is a direct
  // page (SHD-75). Returns false if that fails; the caches keep what they got.
  // Allocates no other memory.
  bool TryTopUpForSplit();
  // Whether TryTopUpForSplit has work to do (SHD-74).
  bool NeedTopUpForSplit() const {
    return lists.count() < kSplitPteLists.min || tables.count() == 0 ||
           states.count() == 0;
  }

  TableCache tables;
  ObjectCache<ShadowPageState> states;
  ObjectCache<GuestTranslations> translations;
  PteListCache lists;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_CACHES_H_
