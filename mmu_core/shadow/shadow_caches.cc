#include "mmu_core/shadow/shadow_caches.h"

#include "absl/status/status.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"

namespace mmu {

ShadowPools ShadowPools::Process() {
  return {.tables = TablePool::Process(),
          .states = ObjectCache<ShadowPageState>::ProcessPool(),
          .translations = ObjectCache<GuestTranslations>::ProcessPool(),
          .lists = PteListPool::Process()};
}

absl::Status ShadowCaches::TopUpForFault(IndirectPages indirect) {
  absl::Status status = lists.TopUp(kFaultPteLists);
  if (status.ok()) status = tables.TopUp(kPagesPerFault);
  if (status.ok()) status = states.TopUp(kPagesPerFault);
  if (status.ok() && indirect == IndirectPages::kPossible) {
    status = translations.TopUp(kPagesPerFault);
  }
  return status;
}

bool ShadowCaches::TryTopUpForSplit() {
  return lists.TryTopUp(kSplitPteLists) && tables.TryTopUp(1) &&
         states.TryTopUp(1);
}

}  // namespace mmu
