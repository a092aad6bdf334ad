#include "mmu_core/shadow/write_tracking.h"

#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/shadow/shadow_vm.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

WriteTracking::~WriteTracking() { MMU_CHECK(!indirect_pages_.Any()); }

void WriteTracking::Account(const MmuWriteLocked& lock,
                            const ShadowPageState& page, MmuCost* cost) {
  const PageRole role = page.page->role;
  if (!role.HasGuestPtes()) return;
  indirect_pages_.Add();

  RcuReadGuard rcu;
  const Gfn gfn = page.gfn();
  const Memslot* const slot = parts_.vm.SlotOf(role.as_id(), gfn);
  MMU_CHECK(slot != nullptr);
  if (role.level() > Level::k4K)
    slot->shadow_rmaps()->AddWriteTracker(lock, gfn);
  slot->lpage_info->Disallow(gfn);
  if (!WriteProtectGfn(lock, role.as_id(), gfn)) return;
  // The VM's other MMUs may have lost W, too.
  TlbFlushBatch flush(
      parts_.tlb.OnAllMmus(),
      role.level() > Level::k4K ? FlushScope::kVm : FlushScope::kRange,
      FlushReason::kWriteProtect);
  flush.Add(GfnRange::Of(gfn, 1));
  flush.Flush(cost);
}

bool WriteTracking::WriteProtectGfn(const MmuWriteLocked& lock, int as_id,
                                    Gfn gfn) {
  RcuReadGuard rcu;
  const Memslot* const slot = parts_.vm.SlotOf(as_id, gfn);
  if (slot == nullptr) return false;  // no MMU maps the gfn
  const bool changed =
      links_.WriteProtectGfn(lock, *slot->shadow_rmaps(), gfn, Level::k4K);
  return parts_.vm.WriteProtectGfn(lock, *slot, gfn) || changed;
}

void WriteTracking::Unaccount(const MmuWriteLocked& lock,
                              const ShadowPageState& page) {
  const PageRole role = page.page->role;
  if (!role.HasGuestPtes()) return;
  indirect_pages_.Remove();
  RcuReadGuard rcu;
  const Gfn gfn = page.gfn();
  const Memslot* const slot = parts_.vm.SlotOf(role.as_id(), gfn);
  MMU_CHECK(slot != nullptr);
  if (role.level() > Level::k4K)
    slot->shadow_rmaps()->RemoveWriteTracker(lock, gfn);
  slot->lpage_info->Allow(gfn);
}

}  // namespace mmu
