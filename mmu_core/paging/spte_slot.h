// The slot of one SPTE in a page table.

#ifndef MMU_CORE_PAGING_SPTE_SLOT_H_
#define MMU_CORE_PAGING_SPTE_SLOT_H_

#include "mmu_core/paging/entry_slot.h"
#include "mmu_core/paging/spte.h"

namespace mmu {

using SpteSlot = EntrySlot<Spte>;

static_assert(sizeof(SpteSlot) == 8);

}  // namespace mmu

#endif  // MMU_CORE_PAGING_SPTE_SLOT_H_
