// The NX huge page mitigation: the part that removes tables again (SPTE-53,
// TDP-40). tdp_fault.cc makes them.

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

uint64_t TdpMmu::RecoverNxHugePages(
    MmuReadLocked& lock, uint64_t max_tables,
    absl::FunctionRef<bool(const ShadowPage&)> keep, MmuCost* cost) {
  uint64_t left = max_tables;
  uint64_t zapped = 0;
  while (left > 0) {
    {
      TlbFlushBatch batch(parts_.tlb, FlushScope::kRange,
                          FlushReason::kRecover);
      RcuReadGuard rcu;
      HoldWatch<MmuReadLocked> watch(lock, {});
      while (left > 0) {
        // Taken off the list before it is zapped: the mark only prevents faults
        // from changing the page back and forth, and is not needed for safety.
        ShadowPage* const page =
            parts_.nx_huge_pages.of(MmuKind::kTdp).TakeOldest();
        if (page == nullptr) {
          left = 0;
          break;
        }
        --left;
        AtHook(HookPoint::kNxTakenToZap);
        const GfnRange replaced =
            GfnRange::Of(page->gfn, PagesPer(ParentOf(page->role.level())));
        if (!keep(*page) && ZapNxTable(lock, *page)) {
          batch.Add(replaced, FlushDepth::kTables);
          ++zapped;
        }
        lock.CountWork(kEntriesPerTable);
        if (watch.IsDue()) break;
      }
      // Flush before the RCU section ends (TLB-06).
      if (batch.pending()) batch.Flush(cost);
    }
    if (left > 0) lock.Yield();
  }
  return zapped;
}

// Meanwhile the entry may have changed and its table may have been unlinked,
// but neither is freed yet:
//
//   CPU 0 (recovery)                    CPU 1 (zap, recover, fault)
//   1. RCU section begins
//   2. takes the page off the list
//                                       3. unlinks the page, or its parent with
//                                          it
//   4. reads the entry: not this page,
//      or frozen
//
// A thread that unlinks the parent visits this page, and takes it off the list,
// before the parent is handed to RCU. The page was on the list at 2, so the
// hand-over is later than 1, and the parent outlives the section.
bool TdpMmu::ZapNxTable(const MmuReadLocked& lock, ShadowPage& page) {
  const Level level = ParentOf(page.role.level());
  for (;;) {
    const Spte spte = page.parent->Load();
    if (!spte.IsPresentTable(level) || TableOf(spte) != page.table) {
      return false;
    }
    if (updater_.UpdateOnce(lock, *page.parent, page.gfn, level, spte,
                            Spte::Initial())) {
      return true;
    }
    // Perhaps only a walk or an ageing has changed Accessed (RACE-55).
  }
}

}  // namespace mmu
