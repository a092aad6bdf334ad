// What making and linking shadow pages consumes, taken from pools before
// mmu_lock is (SHD-19, SHD-75, LCK-01).

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

// Where the caches get theirs.
struct ShadowPools {
  TablePool& tables;
  ObjectPool& states;
  ObjectPool& translations;
  PteListPool& lists;

  // Those that all VMs of the process share.
  static ShadowPools Process();
};

// Whether a vCPU may need pages that stand for a guest's tables.
enum class IndirectPages : uint8_t { kNone, kPossible };

// Externally synchronised: a vCPU's by its thread, those for splitting by
// slots_lock (LCK-05).
struct ShadowCaches {
  // Pages that one fault may need: one for each level (SHD-19).
  static constexpr int kPagesPerFault = 5;

  explicit ShadowCaches(const ShadowPools& pools)
      : tables(pools.tables),
        states(pools.states),
        translations(pools.translations),
        lists(pools.lists) {}

  // Enough for a fault, or a root and the pages below it (SHD-19).
  // RESOURCE_EXHAUSTED (ENOMEM) if that cannot be had; what was got is kept.
  // REQUIRES, as the next: MayFillFromPool() (sync/refill.h).
  absl::Status TopUpForFault(IndirectPages indirect);
  // Whether TopUpForFault has something to do.
  bool NeedTopUpForFault(IndirectPages indirect) const {
    return lists.count() < kFaultPteLists.min ||
           tables.count() < kPagesPerFault || states.count() < kPagesPerFault ||
           (indirect == IndirectPages::kPossible &&
            translations.count() < kPagesPerFault);
  }
  // Enough for the split of one huge SPTE; its child is a direct page (SHD-75).
  // False if that cannot be had; what was got is kept. Needs no other memory.
  bool TryTopUpForSplit();
  // Whether TryTopUpForSplit has something to do (SHD-74).
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
