#include "mmu_core/shadow/unsync_gate.h"

#include <atomic>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"

namespace mmu {

template <typename Lock>
bool UnsyncGate::MayMap(const Lock& lock, const Memslot& slot, Gfn gfn,
                        Tables allowed) {
  MMU_DCHECK(lock.held());
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  // A page with guest PTEs prevents huge mappings of its gfn, so a gfn that
  // allows them has no such page. Other causes prevent huge mappings, too; the
  // loop below then finds no page.
  if (rmaps == nullptr || !slot.lpage_info->Disallowed(gfn, Level::k2M)) {
    return true;
  }
  if (rmaps->IsWriteTracked(gfn)) return false;
  bool may = true;
  pages_.ForEachWithGuestPtes(lock, gfn, [&](ShadowPageState& page) {
    if (page.page->role.as_id() != slot.as_id) return true;
    MMU_CHECK(page.level() == Level::k4K);  // higher levels are write-tracked
    may = allowed != Tables::kNone;
    if (!may) return false;
    // H1 of RACE-33.
    if (page.unsync.load(std::memory_order_acquire)) return true;
    may = allowed == Tables::kMadeUnsync;
    if (!may) return false;
    if (ShouldSkipUnsync != nullptr && ShouldSkipUnsync()) return true;
    MutexLock marking(unsync_.lock());
    unsync_.MarkUnsync(lock, page);  // does nothing if it is unsync
    return true;
  });
  if (may) AtHook(HookPoint::kUnsyncToWritable);
  return may;
}

bool UnsyncGate::MayMapWritable(const MmuReadLocked& lock, const Memslot& slot,
                                Gfn gfn, Prefetched prefetched) {
  return MayMap(
      lock, slot, gfn,
      prefetched == Prefetched::kYes ? Tables::kUnsync : Tables::kMadeUnsync);
}

bool UnsyncGate::MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot,
                                Gfn gfn, Prefetched prefetched) {
  return MayMap(
      lock, slot, gfn,
      prefetched == Prefetched::kYes ? Tables::kUnsync : Tables::kMadeUnsync);
}

bool UnsyncGate::MayMapWritableInSync(const MmuWriteLocked& lock,
                                      const Memslot& slot, Gfn gfn) {
  return MayMap(lock, slot, gfn, Tables::kNone);
}

}  // namespace mmu
