#include "mmu_core/shadow/shadow_links.h"

#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

void ShadowLinks::LinkChild(const MmuWriteLocked& lock, SpteSlot& sptep,
                            ShadowPageState& child, PteListCache& lists,
                            TlbFlushBatch* flush, MmuCost* cost) {
  const ShadowPageState& parent = PageHolding(sptep);
  const Level level = parent.level();
  MMU_CHECK(child.level() == ChildOf(level) && !child.IsInvalid());
  const Spte old_spte = sptep.Load();
  MMU_CHECK(!old_spte.IsPresentTable(level));
  if (old_spte.IsPresent()) {
    const GfnRange range = RangeOf(sptep);
    DropLeaf(lock, sptep);
    if (flush != nullptr) {
      flush->Add(range);
      flush->Flush(cost);
    }
  }
  sptep.Store(parts_.FormatOf(parent).MakeTable(
      reinterpret_cast<uint64_t>(child.page->table)));
  child.parents.Add(lock, sptep, lists, parts_.counters);
  unsync_.NoteLinked(lock, sptep, child);
}

ShadowPageState& ShadowLinks::UnlinkChild(const MmuWriteLocked& lock,
                                          SpteSlot& sptep) {
  const Spte spte = sptep.Load();
  MMU_CHECK(spte.IsPresentTable(PageHolding(sptep).level()));
  ShadowPageState& child = ChildAt(spte);
  sptep.Store(Spte::Initial());
  child.parents.Remove(lock, sptep, parts_.counters);
  return child;
}

void ShadowLinks::UnlinkParents(const MmuWriteLocked& lock,
                                ShadowPageState& page) {
  page.parents.ZapAll(
      lock, [](SpteSlot& sptep) { sptep.Store(Spte::Initial()); },
      parts_.counters);
}

bool ShadowLinks::AddLeaf(const MmuWriteLocked& lock, SpteSlot& sptep,
                          Spte spte, GuestTranslation translation,
                          SlotRmaps& rmaps, PteListCache& lists,
                          MmuCost* cost) {
  ShadowPageState& page = PageHolding(sptep);
  const Level level = page.level();
  MMU_CHECK(!sptep.Load().IsPresent() && spte.IsPresentLeaf(level));
  page.SetTranslation(IndexInTable(sptep), translation);
  sptep.Store(spte);
  parts_.counters.AddLeafs(level, 1);
  RmapHead& head = rmaps.Head(translation.gfn, level);
  const uint64_t before = head.Add(lock, sptep, lists, parts_.counters);
  ShadowCounters::Raise(parts_.counters.shadow.max_mmu_rmap_size, before);
  if (before <= kRmapRecycleThreshold) return false;
  ZapRmap(lock, head);
  TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kZap);
  flush.Add(GfnRange::Of(translation.gfn, PagesPer(level)));
  flush.Flush(cost);
  return true;
}

Spte ShadowLinks::ChangeLeaf(const MmuWriteLocked& lock, SpteSlot& sptep,
                             Spte spte, AccessRights access) {
  MMU_DCHECK(lock.held());
  ShadowPageState& page = PageHolding(sptep);
  const Level level = page.level();
  const int index = IndexInTable(sptep);
  const Spte old_spte = sptep.Exchange(spte);
  MMU_CHECK(old_spte.IsPresentLeaf(level) && spte.IsPresentLeaf(level) &&
            old_spte.pfn() == spte.pfn());
  page.SetTranslation(index, {page.TranslationOf(index).gfn, access});
  return old_spte;
}

Spte ShadowLinks::ClearLeaf(SpteSlot& sptep) {
  const ShadowPageState& page = PageHolding(sptep);
  const Level level = page.level();
  // Until the entry is replaced, the processor may set Accessed or Dirty in it,
  // and the caller must learn of that (RACE-11). So this load is only a check;
  // the exchange returns the final value.
  MMU_CHECK(sptep.Load().IsPresentLeaf(level));
  AtHook(HookPoint::kSnapshotToStore);
  const Spte spte = sptep.Exchange(Spte::Initial());
  parts_.counters.AddLeafs(level, -1);
  return spte;
}

Spte ShadowLinks::DropLeaf(const MmuWriteLocked& lock, SpteSlot& sptep) {
  ShadowPageState& page = PageHolding(sptep);
  const Level level = page.level();
  const Gfn gfn = page.TranslationOf(IndexInTable(sptep)).gfn;
  const Spte spte = ClearLeaf(sptep);
  RcuReadGuard rcu;
  const Memslot* const slot = parts_.vm.SlotOf(page.page->role.as_id(), gfn);
  MMU_CHECK(slot != nullptr);
  slot->shadow_rmaps()->Head(gfn, level).Remove(lock, sptep, parts_.counters);
  return spte;
}

bool ShadowLinks::ZapRmap(const MmuWriteLocked& lock, RmapHead& head) {
  return head.ZapAll(
      lock, [this](SpteSlot& sptep) { ClearLeaf(sptep); }, parts_.counters);
}

bool ShadowLinks::WriteProtectGfn(const MmuWriteLocked& lock, SlotRmaps& rmaps,
                                  Gfn gfn, Level min_level) {
  bool changed = false;
  for (Level level = min_level; level <= kMaxLeafLevel;
       level = ParentOf(level)) {
    RmapIterator it = rmaps.Head(gfn, level).Entries(lock);
    for (; it.Valid(); it.Next()) {
      const SpteFormat& format = parts_.FormatOf(PageHolding(it.sptep()));
      Spte old_spte = it.sptep().Load();
      // The processor may set A and D at any moment, and a fast fault W.
      while (format.IsMmuWritable(old_spte) || old_spte.IsWritable()) {
        if (it.sptep().CompareExchange(old_spte,
                                       format.WithoutMmuWrite(old_spte))) {
          changed = true;
          break;
        }
      }
    }
  }
  return changed;
}

GfnRange ShadowLinks::RangeOf(const SpteSlot& sptep) {
  const ShadowPageState& page = PageHolding(sptep);
  return GfnRange::Of(page.TranslationOf(IndexInTable(sptep)).gfn,
                      PagesPer(page.level()));
}

}  // namespace mmu
