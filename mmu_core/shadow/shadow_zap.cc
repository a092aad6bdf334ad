#include "mmu_core/shadow/shadow_zap.h"

#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/shadow/object_cache.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

// No thread can reach the page through a table or a list any more; lock-free
// readers that reached it before are in RCU sections.
void FreeAfterGracePeriod(ShadowPage& page) {
  using States = ObjectCache<ShadowPageState>;
  using Translations = ObjectCache<GuestTranslations>;
  RcuReadGuard rcu;
  if (page.state->translations != nullptr) {
    Translations::BeginGracePeriod(*page.state->translations);
  }
  States::BeginGracePeriod(*page.state);
  TablePool::BeginGracePeriod(page);
  AtHook(HookPoint::kFreezeToFree);
  RcuDefer(
      &page.rcu,
      [](void* arg) {
        auto* dead = static_cast<ShadowPage*>(arg);
        ShadowPageState* const state = dead->state;
        if (state->translations != nullptr) {
          Translations::EndGracePeriod(state->translations);
        }
        States::EndGracePeriod(state);
        dead->state = nullptr;
        TablePool::EndGracePeriod(*dead);
      },
      &page);
}

}  // namespace

ZapOutcome ShadowZap::Prepare(const MmuWriteLocked& lock, ShadowPageState& page,
                              ZappedPages& zapped) {
  // The Reclaim begins before the page becomes unreachable, so that threads
  // that lack pages wait for its end. The lock keeps root_count unchanged.
  if (page.root_count == 0 && !zapped.reclaim_) zapped.reclaim_.emplace();
  ShadowCounters::Add(parts_.counters.shadow.mmu_shadow_zapped);
  uint64_t others = ZapUnsyncBelow(lock, page, zapped);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    others += ZapSpte(lock, page.EntryAt(i), zapped);
  }
  pages_.links.UnlinkParents(lock, page);
  pages_.unsync.ClearUnsync(lock, page);
  if (nx_huge_pages_ != nullptr) nx_huge_pages_->Forget(*page.page);

  const bool was_obsolete = pages_.set.IsObsolete(page);
  if (!page.IsInvalid()) {
    pages_.tracking.Unaccount(lock, page);
    pages_.set.Deactivate(lock, page);
  }
  if (page.root_count == 0) {
    zapped.list_.Add(page);
    ShadowCounters::Subtract(parts_.counters.shadow.mmu_shadow_pages);
    return {.pages = others + 1, .others = others != 0};
  }
  // The page is already invalid, so each vCPU that gets the request finds out
  // whether its root is invalid. All vCPUs must flush: the page may also have
  // been below another root, and it is not on the list of zapped pages, so no
  // commit flushes for it.
  if (!was_obsolete) {
    parts_.tlb.remote().Request(kFreeObsoleteRoots | kTlbFlush);
  }
  return {.pages = others, .others = others != 0};
}

uint64_t ShadowZap::ZapUnsyncBelow(const MmuWriteLocked& lock,
                                   ShadowPageState& page, ZappedPages& zapped) {
  uint64_t pages = 0;
  for (;;) {
    UnsyncBatch batch;
    pages_.unsync.Collect(lock, page, batch);
    if (batch.count == 0) return pages;
    // All pages of the batch have level 1, so none is below another.
    for (int i = 0; i < batch.count; ++i) {
      pages += Prepare(lock, *batch.pages[i], zapped).pages;
    }
  }
}

uint64_t ShadowZap::ZapSpte(const MmuWriteLocked& lock, SpteSlot& sptep,
                            ZappedPages& zapped) {
  const Spte spte = sptep.Load();
  if (!spte.IsPresent()) {
    // Possibly an MMIO SPTE.
    if (spte != Spte::Initial()) sptep.Store(Spte::Initial());
    return 0;
  }
  if (spte.IsLeaf(PageHolding(sptep).level())) {
    pages_.links.DropLeaf(lock, sptep);
    return 0;
  }
  ShadowPageState& child = pages_.links.UnlinkChild(lock, sptep);
  if (tdp_ == TdpEnabled::kYes && child.page->role.guest_mode() &&
      child.parents.empty() && child.root_count == 0) {
    return Prepare(lock, child, zapped).pages;
  }
  return 0;
}

void ShadowZap::Commit(const MmuWriteLocked& lock, ZappedPages& zapped,
                       TlbFlushBatch& flush, MmuCost* cost) {
  if (zapped.empty()) {
    if (flush.pending()) flush.Flush(cost);
    return;
  }
  // Of everything: tables go, and the gfns that they mapped are not known.
  flush.FlushEverything(cost);
  while (ShadowPageState* const page = zapped.list_.oldest()) {
    MMU_DCHECK(page->parents.empty() && page->root_count == 0);
    zapped.list_.Remove(*page);
    pages_.set.Remove(lock, *page);
    FreeAfterGracePeriod(*page->page);
  }
  zapped.reclaim_.reset();
}

void ShadowZap::Commit(const MmuWriteLocked& lock, ZappedPages& zapped,
                       MmuCost* cost) {
  TlbFlushBatch flush(parts_.tlb, FlushScope::kVm, FlushReason::kZap);
  Commit(lock, zapped, flush, cost);
}

void ShadowZap::GetRoot(const MmuWriteLocked& lock, ShadowPageState& page) {
  MMU_DCHECK(lock.held());
  MMU_CHECK(!page.IsInvalid());
  ++page.root_count;
}

void ShadowZap::PutRoot(const MmuWriteLocked& lock, ShadowPageState& page,
                        ZappedPages& zapped) {
  MMU_CHECK(page.root_count > 0);
  if (--page.root_count == 0 && page.IsInvalid()) Prepare(lock, page, zapped);
}

uint64_t ShadowZap::ZapOldest(const MmuWriteLocked& lock, uint64_t pages,
                              MmuCost* cost) {
  ZappedPages zapped;
  uint64_t gone = 0;
  const ShadowPageList& active = pages_.set.active();
  ShadowPageState* page = active.oldest();
  while (page != nullptr && gone < pages) {
    ShadowPageState* next = page->newer;
    if (page->root_count == 0) {
      const ZapOutcome outcome = Prepare(lock, *page, zapped);
      gone += outcome.pages;
      if (outcome.others) next = active.oldest();
    }
    page = next;
  }
  Commit(lock, zapped, cost);
  ShadowCounters::Add(parts_.counters.shadow.mmu_recycled, gone);
  return gone;
}

void ShadowZap::ZapObsolete(MmuWriteLocked& lock, MmuCost* cost) {
  ZappedPages zapped;
  uint64_t batch = 0;
  // New pages are added at the other end: the loop ends at the first page that
  // is not obsolete.
  while (ShadowPageState* const page = pages_.set.active().oldest()) {
    if (!pages_.set.IsObsolete(*page)) break;
    if (batch >= kBatch && lock.NeedYield()) {
      lock.Yield();
      batch = 0;
      continue;
    }
    batch += Prepare(lock, *page, zapped).pages;
  }
  Commit(lock, zapped, cost);
}

uint64_t ShadowZap::RecoverNxHugePages(
    MmuWriteLocked& lock, uint64_t max_pages,
    absl::FunctionRef<bool(const ShadowPage&)> keep, MmuCost* cost) {
  uint64_t left = max_pages;
  uint64_t zapped_count = 0;
  while (left > 0) {
    {
      ZappedPages zapped;
      RcuReadGuard rcu;  // protects the list's pages and `keep`'s memslots
      HoldWatch<MmuWriteLocked> watch(lock, {});
      while (left > 0) {
        ShadowPage* const page = nx_huge_pages_->TakeOldest();
        if (page == nullptr) {
          left = 0;
          break;
        }
        --left;
        AtHook(HookPoint::kNxTakenToZap);
        if (!keep(*page)) {
          Prepare(lock, *page->state, zapped);
          ++zapped_count;
        }
        lock.CountWork(kEntriesPerTable);
        if (watch.IsDue()) break;
      }
      Commit(lock, zapped, cost);
    }
    if (left > 0) lock.Yield();
  }
  return zapped_count;
}

void ShadowZap::ZapAll(const MmuWriteLocked& lock, MmuCost* cost) {
  ZappedPages zapped;
  while (ShadowPageState* const page = pages_.set.active().oldest()) {
    Prepare(lock, *page, zapped);
  }
  Commit(lock, zapped, cost);
}

}  // namespace mmu
