// A descriptor in a list of several SPTEs (rmap/rmap.h).

#ifndef MMU_CORE_RMAP_PTE_LIST_DESC_H_
#define MMU_CORE_RMAP_PTE_LIST_DESC_H_

#include <array>
#include <cstdint>

#include "mmu_core/paging/spte_slot.h"

namespace mmu {

// The entries that fit into two cache lines beside the header.
inline constexpr uint32_t kPteListEntries = 14;

// Owned by the pool, by one cache or by one list, and synchronised as its owner
// is. The pool and the caches use only `next`.
struct alignas(128) PteListDesc {
  PteListDesc* next;
  uint32_t count;       // entries in use, the first ones of `sptes`
  uint32_t tail_count;  // sum of `count` over all later descriptors
  std::array<SpteSlot*, kPteListEntries> sptes;
};
static_assert(sizeof(PteListDesc) == 128);

}  // namespace mmu

#endif  // MMU_CORE_RMAP_PTE_LIST_DESC_H_
