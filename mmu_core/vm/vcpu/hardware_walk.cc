#include "mmu_core/vm/vcpu/hardware_walk.h"

#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

WalkResult HardwareWalk(const SpteFormat& format, const MmioFormat& mmio,
                        const HostMemory& memory, const TdpRoot& root, Gfn gfn,
                        AccessKind kind, PmlBuffer* pml) {
  WalkResult result;
  // Not for the model's sake (a table is freed only after the TLB flush, which
  // waits for access sections) but for roots that are freed without one.
  RcuReadGuard rcu;
  for (;;) {
    PageTable* table = root.table();
    Level level = root.level();
    SpteSlot* slot;
    Spte spte;
    for (;;) {
      slot = &table->entries[IndexOf(gfn, level)];
      spte = slot->Load();
      // Reserved bits come before permissions.
      if (!spte.IsPresent() && mmio.IsMmio(spte)) {
        result.kind = WalkResult::Kind::kReserved;
        return result;
      }
      if (!format.Allows(spte, AccessKind::kRead)) return result;
      if (spte.IsLeaf(level)) break;
      table = TableOf(spte);
      level = ChildOf(level);
      AtHook(HookPoint::kWalkToTable);
    }
    if (!format.Allows(spte, kind)) {
      result.kind = WalkResult::Kind::kNotAllowed;
      return result;
    }
    Spte assisted = spte;
    if (format.has_ad()) {
      assisted = format.WithAccessed(spte);
      if (kind == AccessKind::kWrite) assisted = format.WithDirty(assisted);
    }
    const bool sets_dirty = format.IsDirty(assisted) && !format.IsDirty(spte);
    if (sets_dirty && pml != nullptr && pml->full()) {
      result.kind = WalkResult::Kind::kLogFull;
      return result;
    }
    if (assisted != spte && !slot->CompareExchange(spte, assisted)) continue;
    if (sets_dirty && pml != nullptr) {
      // The guest's write comes after it, so whoever clears D meanwhile makes
      // the page be noted once more than needed.
      pml->Log(ToGpa(gfn));
      AtHook(HookPoint::kLogToDrain);
    }

    result.kind = WalkResult::Kind::kTranslated;
    result.entry = {
        .base_gfn = RoundDown(gfn, level),
        .pfn = assisted.pfn(),
        .host = memory.PointerTo(assisted.pfn()),
        .root_id = root.id(),
        .level = level,
        .writable = assisted.IsWritable(),
        .executable = format.IsExecutable(assisted),
        // Without Dirty bits there is none to set on a write.
        .dirty_set = !format.has_ad() || format.IsDirty(assisted),
    };
    return result;
  }
}

}  // namespace mmu
