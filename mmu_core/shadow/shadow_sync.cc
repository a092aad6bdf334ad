#include "mmu_core/shadow/shadow_sync.h"

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/guest_pte_index.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

// The parts of a page's role that equal those of the root above it.
PageRole CommonRole(PageRole role) {
  PageRole::Fields fields = role.fields();
  fields.level = 0;
  fields.quadrant = 0;
  fields.access = {};
  fields.passthrough = false;
  return PageRole::Of(fields);
}

// Whether `guest` interprets the table that `page` shadows in the same way as
// when the page was built. Another vCPU, or this one in another mode, may have
// built the page.
bool CanSync(const GuestContext& guest, const ShadowPageState& page) {
  const PageRole role = page.page->role;
  MMU_CHECK(role.HasGuestPtes() && role.level() == Level::k4K);
  return guest.has_guest_tables() &&
         CommonRole(role) == CommonRole(guest.root_role);
}

}  // namespace

PageSync ShadowSync::SyncPage(const MmuWriteLocked& lock, GuestContext& guest,
                              ShadowPageState& page, MmuCost* cost) {
  if (!CanSync(guest, page)) return PageSync::kFailed;
  RcuReadGuard rcu;  // one section instead of one per entry read
  PageSync result = PageSync::kUnchanged;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    if (page.EntryAt(i).Load() == Spte::Initial()) continue;
    switch (SyncOne(lock, guest, page, i, cost)) {
      case PageSync::kFailed:
        return PageSync::kFailed;
      case PageSync::kNeedsFlush:
        result = PageSync::kNeedsFlush;
        break;
      case PageSync::kUnchanged:
        break;
    }
  }
  return result;
}

PageSync ShadowSync::SyncEntry(const MmuWriteLocked& lock, GuestContext& guest,
                               ShadowPageState& page, int index,
                               MmuCost* cost) {
  if (page.EntryAt(index).Load() == Spte::Initial()) {
    return PageSync::kUnchanged;
  }
  if (!CanSync(guest, page)) return PageSync::kFailed;
  return SyncOne(lock, guest, page, index, cost);
}

PageSync ShadowSync::SyncOne(const MmuWriteLocked& lock, GuestContext& guest,
                             ShadowPageState& page, int index, MmuCost* cost) {
  if (cost != nullptr) ++cost->sptes_visited_count;
  SpteSlot& sptep = page.EntryAt(index);
  const Spte old_spte = sptep.Load();
  // An MMIO SPTE: the next access makes it again if the gfn still has no slot.
  if (!old_spte.IsPresent()) return Drop(lock, sptep);

  const PageRole role = page.page->role;
  const WordSize size = guest.walker.entry_size();
  const Gpa gpte_gpa =
      ToGpa(page.gfn()) + static_cast<uint64_t>(GuestPteIndex(role, index)) *
                              static_cast<uint64_t>(size);
  uint64_t gpte;
  if (guest.memory.Read(gpte_gpa, size, &gpte) != GuestWordResult::kDone) {
    return PageSync::kFailed;
  }
  const GuestWalker::EntryInfo entry = guest.walker.Decode(gpte, 1);
  if (!entry.present || entry.reserved || !entry.accessed) {
    return Drop(lock, sptep);
  }
  AccessRights access = entry.rights & role.access();
  // The first write to a clean page has to fault, to set D (SHD-48).
  if (!entry.dirty) access = access.Without(kMayWrite);
  const GuestTranslation was = page.TranslationOf(index);
  // The entries of a walk of EPT may together grant too little for an SPTE.
  if (entry.gfn != was.gfn || access.Without(kMayWrite) == AccessRights()) {
    return Drop(lock, sptep);
  }
  if (access == was.access) return PageSync::kUnchanged;

  RcuReadGuard rcu;
  const Memslot* const slot = parts_.vm.SlotOf(role.as_id(), entry.gfn);
  if (slot == nullptr || slot->invalid()) return Drop(lock, sptep);
  // A writable SPTE would mark the page dirty before it is written, and a ring
  // has no room for the pages of a whole table. The first write makes the SPTE
  // again and marks the page.
  if (slot->dirty_log_enabled() && access.Has(kMayWrite)) {
    return Drop(lock, sptep);
  }
  const SpteFormat& format = parts_.FormatOf(page);
  const Spte spte = leafs_
                        .Make(lock, page, *slot,
                              {.pfn = old_spte.pfn(),
                               .translation = {entry.gfn, access},
                               .map_writable = format.IsHostWritable(old_spte)
                                                   ? HostWritable::kYes
                                                   : HostWritable::kNo,
                               .synchronizing = true,
                               .old_spte = old_spte,
                               .ring = guest.ring})
                        .spte;
  const Spte replaced = pages_.links().ChangeLeaf(lock, sptep, spte, access);
  return format.ChangeNeedsFlush(replaced, spte) ? PageSync::kNeedsFlush
                                                 : PageSync::kUnchanged;
}

PageSync ShadowSync::Drop(const MmuWriteLocked& lock, SpteSlot& sptep) {
  const bool present = sptep.Load().IsPresent();
  ZappedPages none;  // stays empty: a page of level 1 has no children
  pages_.zap().ZapSpte(lock, sptep, none);
  return present ? PageSync::kNeedsFlush : PageSync::kUnchanged;
}

bool ShadowSync::SyncChildren(MmuWriteLocked& lock, GuestContext& guest,
                              ShadowPageState& top, MayYield may_yield,
                              MmuCost* cost) {
  for (bool first = true;; first = false) {
    if (!first && lock.NeedYield()) {
      if (may_yield == MayYield::kNo) return false;
      lock.Yield();
    }
    UnsyncBatch batch;
    pages_.unsync().Collect(lock, top, batch);
    if (batch.count == 0) return true;
    SyncBatch(lock, guest, batch, cost);
  }
}

void ShadowSync::SyncBatch(const MmuWriteLocked& lock, GuestContext& guest,
                           const UnsyncBatch& batch, MmuCost* cost) {
  const absl::Span<ShadowPageState* const> pages(
      batch.pages.data(), static_cast<size_t>(batch.count));
  // Steps 2 and 4 of RACE-34.
  TlbFlushBatch protect(parts_.tlb.OnAllMmus(), FlushScope::kVm,
                        FlushReason::kWriteProtect);
  for (const ShadowPageState* page : pages) {
    if (pages_.tracking().WriteProtectGfn(lock, page->page->role.as_id(),
                                          page->gfn())) {
      protect.Add(GfnRange::Of(page->gfn(), 1));
    }
  }
  if (protect.pending()) protect.Flush(cost);
  AtHook(HookPoint::kProtectToRead);

  ZappedPages zapped;
  TlbFlushBatch flush(parts_.tlb, FlushScope::kVm, FlushReason::kUnsync);
  for (ShadowPageState* page : pages) {
    pages_.unsync().ClearUnsync(lock, *page);
    switch (SyncPage(lock, guest, *page, cost)) {
      case PageSync::kFailed:
        pages_.zap().Prepare(lock, *page, zapped);
        break;
      case PageSync::kNeedsFlush:
        flush.Add(GfnRange::Of(page->gfn(), 1));
        break;
      case PageSync::kUnchanged:
        break;
    }
  }
  pages_.zap().Commit(lock, zapped, flush, cost);
}

}  // namespace mmu
