#include "mmu_core/rmap/pte_list_cache.h"

#include <cerrno>

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

bool PteListCache::TryTopUp(PteListNeed need) {
  MMU_DCHECK(MayFillFromPool());
  if (count_ >= need.min) return true;
  return FillFromPool([&] {
    const PteListPool::Chain chain = pool_.Take(need.capacity - count_);
    PteListDesc* next = nullptr;
    for (PteListDesc* desc = chain.head; desc != nullptr; desc = next) {
      next = desc->next;
      desc->next = head_;
      head_ = desc;
    }
    count_ += chain.count;
    // Descriptors return to their pool at once, without a grace period.
    return Refill{.enough = count_ >= need.min, .in_grace_period = 0};
  });
}

absl::Status PteListCache::TopUp(PteListNeed need) {
  if (TryTopUp(need)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   {Reason::kMmuPagesExhausted, "", ENOMEM},
                   "the host has no memory for another reverse map; delete a "
                   "VM");
}

PteListDesc* PteListCache::Take() {
  MMU_CHECK(count_ > 0);
  PteListDesc* desc = head_;
  head_ = desc->next;
  desc->next = nullptr;
  --count_;
  return desc;
}

void PteListCache::Clear() {
  PteListPool::Return(head_);
  head_ = nullptr;
  count_ = 0;
}

int PteListCache::CountChain() const {
  int found = 0;
  for (const PteListDesc* desc = head_; desc != nullptr && found <= count_;
       desc = desc->next) {
    ++found;
  }
  return found;
}

}  // namespace mmu
