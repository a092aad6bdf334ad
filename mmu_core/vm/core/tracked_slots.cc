#include "mmu_core/vm/core/tracked_slots.h"

#include <algorithm>
#include <vector>

#include "mmu_core/base/address.h"
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

bool ContainsSlot(const std::vector<TrackedSlot>& slots,
                  const TrackedSlot& slot) {
  const auto found =
      std::lower_bound(slots.begin(), slots.end(), slot.range.start,
                       [](const TrackedSlot& other, Gfn start) {
                         return other.range.start < start;
                       });
  return found != slots.end() && *found == slot;
}

bool StillHasSlot(const VmCore& vm, const TrackedSlot& slot) {
  RcuReadGuard slots_rcu;
  const Memslot* now = vm.slots.Active(/*as_id=*/0).FindById(slot.id);
  return now != nullptr && now->uid == slot.uid;
}

}  // namespace mmu
