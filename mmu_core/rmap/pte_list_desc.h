// One link of a list of SPTEs that does not fit into a word (rmap/rmap.h).

#ifndef MMU_CORE_RMAP_PTE_LIST_DESC_H_
#define MMU_CORE_RMAP_PTE_LIST_DESC_H_

#include <array>
#include <cstdint>

#include "mmu_core/paging/spte_slot.h"

namespace mmu {

// Entries that fit beside the header into two cache lines.
inline constexpr uint32_t kPteListEntries = 14;

// Owned by the pool, by one cache or by one list, and synchronised by whatever
// synchronises that. The pool and the caches use `next` alone.
struct alignas(128) PteListDesc {
  PteListDesc* next;
  uint32_t count;       // of the first entries of `sptes`, which are in use
  uint32_t tail_count;  // sum of `count` over all descriptors behind this one
  std::array<SpteSlot*, kPteListEntries> sptes;
};
static_assert(sizeof(PteListDesc) == 128);

}  // namespace mmu

#endif  // MMU_CORE_RMAP_PTE_LIST_DESC_H_
