#include "mmu_core/shadow/shadow_faults.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/base/optimization.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/guest_paging/guest_pte_index.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/fault_steps.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// The number of entries in the aligned block that is filled around a leaf
// (SHD-53).
constexpr int kPrefetchBlock = 8;

// Whether the guest's entry still is the one that the walk found.
bool IsUnchanged(GuestContext& guest, const GuestWalkStep& step) {
  uint64_t entry = 0;
  return guest.memory.Read(step.entry_gpa, guest.walker.entry_size(), &entry) ==
             GuestWordResult::kDone &&
         entry == step.entry;
}

// Whether the direct page `top` has an entry for `gfn`.
bool Covers(const ShadowPageState& top, Gfn gfn) {
  const uint64_t pages = PagesPer(top.level()) * kEntriesPerTable;
  return gfn >= top.gfn() && gfn - top.gfn() < pages;
}

HostWritable WritableOnHost(const Memslot& slot, Gfn gfn) {
  return !slot.readonly() && slot.IsHostWritable(gfn) ? HostWritable::kYes
                                                      : HostWritable::kNo;
}

}  // namespace

FaultResult ShadowFaults::FastFault(const ShadowPageState& top,
                                    PageFault& fault) {
  MMU_DCHECK(top.page->role.IsDirect());
  if (!Covers(top, fault.gfn)) return FaultResult::kInvalid;
  return FastPageFault(parts_.FormatOf(top), fault, [&]() -> FaultLeaf {
    PageTable* table = top.page->table;
    for (Level level = top.level();; level = ChildOf(level)) {
      SpteSlot& sptep = table->entries[IndexOf(fault.gfn, level)];
      const Spte spte = sptep.Load();
      if (!spte.IsPresent()) return {};
      if (spte.IsLeaf(level)) return {&sptep, spte, level};
      table = TableOf(spte);
    }
  });
}

FaultResult ShadowFaults::MapDirect(MmuWriteLocked& lock, GuestContext& guest,
                                    ShadowPageState& top, PageFault& fault,
                                    MmuCost* cost) {
  MMU_DCHECK(!top.IsInvalid() && top.page->role.IsDirect());
  if (!Covers(top, fault.gfn)) return FaultResult::kRetry;
  return MapBelow(lock, guest, top, fault, ToGpa(fault.gfn).value(),
                  top.page->role.access(), cost);
}

FaultResult ShadowFaults::MapGuest(MmuWriteLocked& lock, GuestContext& guest,
                                   ShadowPageState& top, PageFault& fault,
                                   uint64_t address,
                                   const GuestWalkResult& walk,
                                   AccessRights access, MmuCost* cost) {
  MMU_DCHECK(!top.IsInvalid() && walk.translated() && walk.level != 0);
  MMU_DCHECK(walk.gfn == fault.gfn && top.level() >= walk.leaf_level());
  // The walk was made without the lock, and an entry may still change until its
  // table is write-protected. So the loop checks each entry again. From here to
  // the release of the lock no change goes unnoticed
  // (shadow/indirect_page_count.h).
  if (!IsUnchanged(guest, walk.step(walk.top_level))) {
    return FaultResult::kRetry;
  }
  const Gfn frame(address >> kPageShift);
  ShadowPageState* page = &top;
  for (;;) {
    page->write_flood_count = 0;  // the page is in use (SHD-41)
    const Level level = page->level();
    if (level == walk.leaf_level()) break;
    const GuestWalkStep& step = walk.step(ToInt(ChildOf(level)));
    const int index = IndexOf(frame, level);
    SpteSlot& sptep = page->EntryAt(index);
    const PageRole role = page->page->role.IndirectChild(step.access, index);
    ShadowPageState* child = ExistingChild(lock, sptep, step.table, role, cost);
    const bool is_linked = child != nullptr;
    if (!is_linked) {
      // The table's memslot may have been deleted since the walk, or is being
      // deleted: then no deletion would zap the page any more.
      const Memslot* const slot = parts_.vm.SlotOf(role.as_id(), step.table);
      if (slot == nullptr || slot->invalid()) return FaultResult::kRetry;
      child = &pages_
                   .GetOrCreate(
                       lock, step.table, role, guest.caches,
                       [&](ShadowPageState& unsync) {
                         return sync_.SyncPage(lock, guest, unsync, cost);
                       },
                       cost)
                   .page;
      // A guest that makes a non-present entry present need not flush. So the
      // pages below must be synchronised before the guest can use the entry
      // (SHD-50). A page of level 1 already is.
      if (child->unsync_children.load(std::memory_order_relaxed) != 0 &&
          !sync_.SyncChildren(lock, guest, *child, ShadowSync::MayYield::kNo,
                              cost)) {
        return FaultResult::kRetry;
      }
    }
    if (!IsUnchanged(guest, step)) return FaultResult::kRetry;
    if (!is_linked) Link(lock, guest, sptep, *child, cost);
    page = child;
  }
  return MapBelow(lock, guest, *page, fault, address, access, cost);
}

FaultResult ShadowFaults::MapBelow(MmuWriteLocked& lock, GuestContext& guest,
                                   ShadowPageState& page, PageFault& fault,
                                   uint64_t address, AccessRights access,
                                   MmuCost* cost) {
  fault.goal_level = Level::k4K;
  if (fault.slot != nullptr) {
    // Chosen after the pages for the guest's tables were made: each of them
    // prevents huge mappings of its gfn (PF-33).
    ChooseFaultLevel(
        fault,
        std::min({page.level(), fault.max_level, options_.max_page_level}),
        options_.nx_huge_pages);
  }
  const Gfn frame(address >> kPageShift);
  ShadowPageState* at = &page;
  for (;;) {
    const Level level = at->level();
    const int index = IndexOf(frame, level);
    SpteSlot& sptep = at->EntryAt(index);
    const Spte spte = sptep.Load();
    if (level == fault.goal_level) {
      // SPTE-52: a huge page would replace the executed small pages.
      if (level == Level::k4K || !spte.IsPresentTable(level) ||
          options_.nx_huge_pages == nullptr ||
          !options_.nx_huge_pages->mitigated() ||
          !ChildAt(spte).page->nx_huge_page_disallowed.load(
              std::memory_order_relaxed)) {
        break;
      }
      LowerFaultGoal(fault);
    }
    // A leaf although the fault has no slot: a slot was added after the fault.
    if (fault.slot == nullptr && spte.IsPresentLeaf(level) &&
        !at->page->role.HasGuestPtes()) {
      return FaultResult::kRetry;
    }
    const Gfn first = RoundDown(fault.gfn, level);
    const PageRole role = at->page->role.DirectChild(access, index);
    ShadowPageState* child = ExistingChild(lock, sptep, first, role, cost);
    if (child == nullptr) {
      child = &pages_.GetOrCreate(lock, first, role, guest.caches, cost).page;
      Link(lock, guest, sptep, *child, cost);
      if (fault.huge_page_disallowed) {
        child->page->nx_huge_page_disallowed.store(true,
                                                   std::memory_order_relaxed);
        // The page is tracked only if a huge page would have been possible
        // here.
        if (level <= fault.req_level) {
          options_.nx_huge_pages->of(MmuKind::kShadow).Track(*child->page);
        }
      }
    }
    at = child;
  }

  const int index = IndexOf(frame, at->level());
  const FaultResult result =
      fault.slot == nullptr
          ? InstallMmio(lock, *at, index, fault, cost)
          : InstallLeaf(lock, guest, *at, index, fault, access, cost);
  if (result == FaultResult::kFixed && fault.prefetched == Prefetched::kNo &&
      at->level() == Level::k4K) {
    Prefetch(lock, guest, *at, index, cost);
  }
  return result;
}

ShadowPageState* ShadowFaults::ExistingChild(const MmuWriteLocked& lock,
                                             SpteSlot& sptep, Gfn gfn,
                                             PageRole role, MmuCost* cost) {
  const Spte spte = sptep.Load();
  if (!spte.IsPresentTable(PageHolding(sptep).level())) return nullptr;
  ShadowPageState& child = ChildAt(spte);
  if (child.gfn() == gfn && child.role() == role) return &child;
  // The child is for another page of the guest, or its rights are outdated: a
  // direct page has the rights of the guest's entry, and a write has set D in
  // that entry since the page was made.
  TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kZap);
  Unlink(lock, sptep, flush);
  flush.Flush(cost);
  return nullptr;
}

// A direct page maps the gfns that follow its own. The gfns that another page
// maps are those of a guest's table, and so may be any.
void ShadowFaults::Unlink(const MmuWriteLocked& lock, SpteSlot& sptep,
                          TlbFlushBatch& flush) {
  const ShadowPageState& child = pages_.links().UnlinkChild(lock, sptep);
  flush.Add(child.page->role.IsDirect()
                ? GfnRange::Of(child.gfn(), PagesPer(ParentOf(child.level())))
                : kAllGfns,
            FlushDepth::kTables);
}

void ShadowFaults::Link(const MmuWriteLocked& lock, GuestContext& guest,
                        SpteSlot& sptep, ShadowPageState& child,
                        MmuCost* cost) {
  TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kSplit);
  pages_.links().LinkChild(lock, sptep, child, guest.caches.lists, &flush,
                           cost);
}

Spte ShadowFaults::DropOther(const MmuWriteLocked& lock, ShadowPageState& page,
                             int index, Gfn gfn, Pfn pfn,
                             TlbFlushBatch& flush) {
  const Level level = page.level();
  SpteSlot& sptep = page.EntryAt(index);
  const Spte spte = sptep.Load();
  if (spte.IsPresentTable(level)) {
    Unlink(lock, sptep, flush);
    return Spte::Initial();
  }
  if (!spte.IsPresent()) return Spte::Initial();
  if (spte.pfn() == pfn && page.TranslationOf(index).gfn == gfn) return spte;
  // The guest's entry has changed since this SPTE was made.
  flush.Add(ShadowLinks::RangeOf(sptep));
  pages_.links().DropLeaf(lock, sptep);
  return Spte::Initial();
}

FaultResult ShadowFaults::InstallLeaf(const MmuWriteLocked& lock,
                                      GuestContext& guest,
                                      ShadowPageState& page, int index,
                                      PageFault& fault, AccessRights access,
                                      MmuCost* cost) {
  const Level level = page.level();
  SpteSlot& sptep = page.EntryAt(index);
  const GuestTranslation translation = {RoundDown(fault.gfn, level), access};
  TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kZap);
  const Spte old_spte =
      DropOther(lock, page, index, translation.gfn, fault.pfn, flush);
  const bool was_mapped = old_spte.IsPresent();
  if (was_mapped && (fault.prefetched == Prefetched::kYes ||
                     (!guest.has_guest_tables() &&
                      parts_.FormatOf(page).Allows(old_spte, fault.kind)))) {
    return FaultResult::kSpurious;
  }

  const ShadowLeaf leaf = leafs_.Make(lock, page, *fault.slot,
                                      {.pfn = fault.pfn,
                                       .translation = translation,
                                       .map_writable = fault.map_writable,
                                       .prefetched = fault.prefetched,
                                       .old_spte = old_spte,
                                       .ring = fault.ring});
  if (leaf.marked_dirty) fault.dirtied_pages = 1;
  FaultResult result = FaultResult::kFixed;
  if (!was_mapped) {
    AtHook(HookPoint::kMarkToInstall);
    pages_.links().AddLeaf(lock, sptep, leaf.spte, translation,
                           *fault.slot->shadow_rmaps(), guest.caches.lists,
                           cost);
  } else if (leaf.spte == old_spte &&
             page.TranslationOf(index) == translation) {
    result = FaultResult::kSpurious;
  } else {
    const GfnRange range = ShadowLinks::RangeOf(sptep);
    const Spte replaced =
        pages_.links().ChangeLeaf(lock, sptep, leaf.spte, access);
    if (parts_.FormatOf(page).ChangeNeedsFlush(replaced, leaf.spte)) {
      flush.Add(range);
    }
  }
  if (flush.pending()) flush.Flush(cost);
  if (leaf.write_protected && fault.kind == AccessKind::kWrite) {
    return FaultResult::kWriteProtected;
  }
  return result;
}

FaultResult ShadowFaults::InstallMmio(const MmuWriteLocked& lock,
                                      ShadowPageState& page, int index,
                                      PageFault& fault, MmuCost* cost) {
  SpteSlot& sptep = page.EntryAt(index);
  if (sptep.Load().IsPresent()) {
    // The fault found no slot, but the SPTE is present. If the page has no
    // guest PTEs, a slot was added after the fault. If it has, the guest has
    // changed its entry since the SPTE was made.
    if (!page.page->role.HasGuestPtes()) return FaultResult::kRetry;
    TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kZap);
    flush.Add(ShadowLinks::RangeOf(sptep));
    pages_.links().DropLeaf(lock, sptep);
    flush.Flush(cost);
  }
  if (sptep.Load() != fault.mmio) {
    sptep.Store(fault.mmio);
    fault.mmio_spte_created = true;
  }
  return FaultResult::kEmulate;
}

void ShadowFaults::Prefetch(const MmuWriteLocked& lock, GuestContext& guest,
                            ShadowPageState& page, int index, MmuCost* cost) {
  // Without Accessed bits, prefetched pages could not be told from accessed
  // ones (PF-42).
  if (!parts_.FormatOf(page).has_ad()) return;
  // An invalidation in progress may be about to take the frame away.
  if (options_.invalidations != nullptr &&
      options_.invalidations->AnyInProgress()) {
    return;
  }
  const int first = index / kPrefetchBlock * kPrefetchBlock;
  for (int i = first; i < first + kPrefetchBlock; ++i) {
    if (i == index || page.EntryAt(i).Load().IsPresent()) continue;
    const std::optional<GuestTranslation> translation =
        TranslationAhead(guest, page, i);
    if (!translation.has_value() ||
        !PrefetchEntry(lock, guest, page, i, *translation, cost)) {
      return;
    }
  }
}

std::optional<GuestTranslation> ShadowFaults::TranslationAhead(
    GuestContext& guest, const ShadowPageState& page, int index) {
  const PageRole role = page.page->role;
  if (role.IsDirect()) return page.TranslationOf(index);
  const WordSize size = guest.walker.entry_size();
  const uint64_t offset = static_cast<uint64_t>(GuestPteIndex(role, index)) *
                          static_cast<uint64_t>(size);
  uint64_t entry = 0;
  if (guest.memory.Read(ToGpa(page.gfn()) + offset, size, &entry) !=
      GuestWordResult::kDone) {
    return std::nullopt;
  }
  const GuestWalker::EntryInfo info = guest.walker.Decode(entry, 1);
  // The first use of the entry must fault, since the processor sets A then.
  if (!info.present || info.reserved || !info.accessed) return std::nullopt;
  AccessRights access = role.access() & info.rights;
  if (!info.dirty) access = access.Without(kMayWrite);  // SHD-48
  // The entries of a walk of EPT may together grant no right.
  if (access == AccessRights()) return std::nullopt;
  return GuestTranslation{info.gfn, access};
}

bool ShadowFaults::PrefetchEntry(const MmuWriteLocked& lock,
                                 GuestContext& guest, ShadowPageState& page,
                                 int index, GuestTranslation translation,
                                 MmuCost* cost) {
  const Gfn gfn = translation.gfn;
  const Memslot* const slot = parts_.vm.SlotOf(page.page->role.as_id(), gfn);
  if (slot == nullptr || slot->invalid() || slot->backing == nullptr) {
    return false;
  }
  // A prefetch does not ask for a missing frame: that is impossible under the
  // lock.
  if (slot->StateOf(gfn) == FrameState::kMissing) return false;
  // A writable SPTE would mark the page dirty, although it may never be
  // written.
  if (translation.access.Has(kMayWrite) && slot->dirty_log_enabled()) {
    return false;
  }
  const ShadowLeaf leaf =
      leafs_.Make(lock, page, *slot,
                  {.pfn = slot->PfnOf(gfn),
                   .translation = translation,
                   .map_writable = WritableOnHost(*slot, gfn),
                   .prefetched = Prefetched::kYes});
  pages_.links().AddLeaf(lock, page.EntryAt(index), leaf.spte, translation,
                         *slot->shadow_rmaps(), guest.caches.lists, cost);
  return true;
}

AccessRights AccessOfSupervisorWrite(CpuRole role, AccessRights access) {
  if (role.base().cr0_wp() || access.Has(kMayWrite)) return access;
  const AccessRights writable = access | kMayWrite;
  if (!access.Has(kMayUser)) return writable;
  // Without U the page is a supervisor page, which a supervisor could execute
  // under SMEP. So X goes, too.
  return writable.Without(role.base().cr4_smep() ? kMayUser | kMayExec
                                                 : kMayUser);
}

}  // namespace mmu
