#include "mmu_core/vm/core/tracked_slots.h"

#include <vector>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/working_set/slot_maps.h"

namespace mmu {

std::vector<TrackedSlot> TrackedSlotsIn(const VmCore& vm, GfnRange range) {
  std::vector<TrackedSlot> slots;
  RcuReadGuard rcu;
  for (const Memslot* slot : vm.slots.Active(/*as_id=*/0).SlotsIn(range)) {
    if (slot->invalid()) continue;
    slots.push_back({slot->id, slot->uid, slot->range()});
  }
  return slots;
}

}  // namespace mmu
