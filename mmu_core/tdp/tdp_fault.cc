// Mapping a page on a fault (TDP-41..46), and the fast page fault (PF-10..18).

#include <algorithm>

#include "absl/base/optimization.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/mmu/fault_steps.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

FaultResult TdpMmu::FastFault(const TdpRoot& root, PageFault& fault) {
  return FastPageFault(parts_.format, fault, [&]() -> FaultLeaf {
    // The last entry on the path to the gfn (PF-13).
    TdpCursor c(root.table(), root.level(), GfnRange::Of(fault.gfn, 1),
                Level::k4K);
    if (!c.Valid()) return {};
    c.DescendToFirst();
    if (!c.IsPresentLeaf()) return {};
    return {&c.slot(), c.old_spte(), c.level()};
  });
}

FaultResult TdpMmu::Map(const MmuReadLocked& lock, const TdpRoot& root,
                        PageFault& fault, TableCache& cache) {
  MMU_DCHECK(!root.IsInvalid());
  if (fault.slot != nullptr) {
    ChooseFaultLevel(fault, std::min(fault.max_level, options_.max_page_level),
                     &parts_.nx_huge_pages);
  }
  RcuReadGuard rcu;
  TdpCursor c(root.table(), root.level(), GfnRange::Of(fault.gfn, 1),
              fault.goal_level);
  if (c.Valid()) c.DescendToFirst();
  for (; c.Valid(); c.Next()) {
    // Another thread is tearing down this part of the tree (TDP-29).
    if (c.old_spte().IsFrozen()) return FaultResult::kRetry;
    if (c.level() == fault.goal_level) {
      if (ABSL_PREDICT_FALSE(HoldsDisallowedTable(c))) {
        // Map small pages: a huge page would replace the executed ones.
        LowerFaultGoal(fault);
        c.LowerMinLevel(fault.goal_level);
        continue;
      }
      return fault.slot != nullptr ? InstallLeaf(lock, c, fault)
                                   : InstallMmio(lock, c, fault);
    }
    if (c.IsPresentTable()) continue;

    if (c.IsPresentLeaf()) {
      // A leaf although the fault has no slot: a slot was added after the
      // fault.
      if (fault.slot == nullptr) return FaultResult::kRetry;
      // A huge page above the goal: split it in place, so that its other pages
      // stay mapped (DL-08).
      const SplitTrigger trigger =
          fault.huge_page_disallowed ? SplitTrigger::kNx : SplitTrigger::kFault;
      if (!SplitLeaf(lock, c, cache, trigger, &fault)) {
        return FaultResult::kRetry;
      }
      fault.split_huge_page = true;
      continue;
    }
    ShadowPage* page = cache.Take();
    page->table->FillUnpublished(Spte::Initial());
    updater_.PrepareChild(c, *page);
    MarkDisallowed(fault, *page);
    if (!updater_.Link(lock, c, *page)) {
      // Another vCPU linked a table first: the guest retries (TDP-42).
      cache.Put(page);
      return FaultResult::kRetry;
    }
    TrackDisallowed(fault, c.level(), *page);
  }
  return FaultResult::kRetry;  // the path changed under the walk
}

// SPTE-52. A goal of 4K costs only the first comparison.
bool TdpMmu::HoldsDisallowedTable(const TdpCursor& cursor) const {
  return cursor.level() > Level::k4K && cursor.IsPresentTable() &&
         parts_.nx_huge_pages.mitigated() &&
         TablePool::DescriptorOf(TableOf(cursor.old_spte()))
             ->nx_huge_page_disallowed.load(std::memory_order_relaxed);
}

void TdpMmu::MarkDisallowed(const PageFault& fault, ShadowPage& page) {
  if (ABSL_PREDICT_FALSE(fault.huge_page_disallowed)) {
    page.nx_huge_page_disallowed.store(true, std::memory_order_relaxed);
  }
}

void TdpMmu::TrackDisallowed(const PageFault& fault, Level level,
                             ShadowPage& page) {
  // The page is tracked only if a huge page would have been possible here.
  if (ABSL_PREDICT_FALSE(fault.huge_page_disallowed) &&
      level <= fault.req_level) {
    parts_.nx_huge_pages.of(MmuKind::kTdp).Track(page);
  }
}

FaultResult TdpMmu::InstallLeaf(const MmuReadLocked& lock, TdpCursor& cursor,
                                PageFault& fault) {
  const Spte old_spte = cursor.old_spte();
  const Level level = cursor.level();
  const bool was_leaf = old_spte.IsPresentLeaf(level);
  const bool was_table = old_spte.IsPresentTable(level);
  if (was_leaf && (parts_.format.Allows(old_spte, fault.kind) ||
                   fault.prefetched == Prefetched::kYes)) {
    return FaultResult::kSpurious;
  }
  // Write access is granted wherever the host allows it, even on a read: the
  // page is then marked now instead of at another fault (DL-18). The exception
  // is a page with a guest table that is shadowed: it becomes writable only if
  // its shadow pages can become unsync.
  bool write = fault.map_writable == HostWritable::kYes;
  FaultResult result = FaultResult::kFixed;
  if (ABSL_PREDICT_FALSE(parts_.write_gate != nullptr) && write &&
      !parts_.write_gate->MayMapWritable(lock, *fault.slot, fault.gfn,
                                         fault.prefetched)) {
    write = false;
    if (fault.kind == AccessKind::kWrite) result = FaultResult::kWriteProtected;
  }
  const Spte new_spte = parts_.format.MakeLeaf({
      .level = level,
      .pfn = fault.pfn,
      .write = write,
      .executable = ExecutableAt(level),
      .host_writable = fault.map_writable,
      .prefetched = fault.prefetched,
  });
  if (was_leaf && new_spte == old_spte) {
    return result == FaultResult::kFixed ? FaultResult::kSpurious : result;
  }
  if (new_spte.IsWritable() && fault.slot->dirty_log_enabled()) {
    MMU_DCHECK(level == Level::k4K);
    // Mark before the entry can be used. A CLEAR cannot come in between: it
    // needs mmu_lock for write (SPTE-16).
    if (MarkPageDirty(*fault.slot, fault.gfn, fault.ring)) {
      fault.dirtied_pages = 1;
    }
  }
  AtHook(HookPoint::kMarkToInstall);
  if (!updater_.Update(lock, cursor, new_spte)) {
    // The retry marks again: a ring then has two entries for a page that became
    // dirty once.
    if (fault.ring != nullptr) fault.dirtied_pages = 0;
    return FaultResult::kRetry;
  }
  if (was_table) {
    // Cached small translations of the removed table, and cached pointers to
    // it, must not be used any more (TDP-44).
    TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, FlushReason::kRecover);
    batch.Add(cursor.entry_range(), FlushDepth::kTables);
    batch.Flush(nullptr);
  }
  return result;
}

FaultResult TdpMmu::InstallMmio(const MmuReadLocked& lock, TdpCursor& cursor,
                                PageFault& fault) {
  if (cursor.old_spte().IsPresent()) return FaultResult::kRetry;
  if (cursor.old_spte() != fault.mmio) {
    if (!updater_.Update(lock, cursor, fault.mmio)) return FaultResult::kRetry;
    fault.mmio_spte_created = true;
  }
  return FaultResult::kEmulate;
}

}  // namespace mmu
