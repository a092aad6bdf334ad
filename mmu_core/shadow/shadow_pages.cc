#include "mmu_core/shadow/shadow_pages.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

ShadowPages::ShadowPages(const ShadowParts& parts, TdpEnabled tdp,
                         NxHugePageList* nx_huge_pages)
    : parts_(parts),
      unsync_(parts.counters),
      links_(parts, unsync_),
      tracking_(parts, links_),
      zap_(parts,
           {.set = set_,
            .links = links_,
            .unsync = unsync_,
            .tracking = tracking_},
           tdp, nx_huge_pages) {}

ShadowPages::Result ShadowPages::GetOrCreate(const MmuWriteLocked& lock,
                                             Gfn gfn, PageRole role,
                                             ShadowCaches& caches,
                                             SyncPageFn sync, MmuCost* cost) {
  MMU_CHECK(!role.IsInvalid());
  if (ShadowPageState* const page = Find(lock, gfn, role, sync, cost)) {
    return {*page, false};
  }
  return {Create(lock, gfn, role, caches, cost), true};
}

ShadowPages::Result ShadowPages::GetOrCreate(const MmuWriteLocked& lock,
                                             Gfn gfn, PageRole role,
                                             ShadowCaches& caches,
                                             MmuCost* cost) {
  MMU_CHECK(!role.HasGuestPtes());
  return GetOrCreate(
      lock, gfn, role, caches,
      [](ShadowPageState&) { return PageSync::kFailed; }, cost);
}

ShadowPageState* ShadowPages::Find(const MmuWriteLocked& lock, Gfn gfn,
                                   PageRole role, SyncPageFn sync,
                                   MmuCost* cost) {
  ZappedPages zapped;
  TlbFlushBatch flush(parts_.tlb, FlushScope::kVm, FlushReason::kUnsync);
  uint64_t collisions = 0;
  ShadowPageState* found = nullptr;
  for (ShadowPageState* page = set_.FirstInChain(gfn); page != nullptr;
       page = page->hash_next) {
    if (set_.IsObsolete(*page)) continue;
    if (page->gfn() != gfn) {
      ++collisions;
      continue;
    }
    const bool unsync = page->unsync.load(std::memory_order_relaxed);
    if (page->role() != role) {
      // A former page table is about to be write-protected as a directory; the
      // guest has most likely stopped using it as a page table.
      if (unsync && role.level() > Level::k4K)
        zap_.Prepare(lock, *page, zapped);
      continue;
    }
    if (unsync) {
      const PageSync result = sync(*page);
      if (result == PageSync::kFailed) {
        zap_.Prepare(lock, *page, zapped);
        break;
      }
      if (result == PageSync::kNeedsFlush) flush.Add(GfnRange::Of(gfn, 1));
    }
    page->write_flood_count = 0;
    found = page;
    break;
  }
  zap_.Commit(lock, zapped, flush, cost);
  ShadowCounters::Raise(parts_.counters.shadow.max_mmu_page_hash_collisions,
                        collisions);
  return found;
}

ShadowPageState& ShadowPages::Create(const MmuWriteLocked& lock, Gfn gfn,
                                     PageRole role, ShadowCaches& caches,
                                     MmuCost* cost) {
  ShadowCounters::Add(parts_.counters.shadow.mmu_cache_miss);
  MMU_CHECK(caches.tables.count() > 0);
  ShadowPage& page = *caches.tables.Take();
  ShadowPageState& state = *caches.states.Take();
  state.page = &page;
  page.state = &state;
  page.role = role;
  page.gfn = gfn;
  page.nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
  page.table->FillUnpublished(Spte::Initial());
  if (ShadowPageState::NeedsTranslations(role)) {
    state.translations = caches.translations.Take();
  }
  set_.Insert(lock, state);
  ShadowCounters::Add(parts_.counters.shadow.mmu_shadow_pages);
  tracking_.Account(lock, state, cost);
  return state;
}

bool ShadowPages::MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost) {
  const uint64_t available = Available();
  if (available >= kMinFree) return true;
  zap_.ZapOldest(lock, kRefill - available, cost);
  return Available() > 0;
}

absl::Status ShadowPages::Exhausted() const {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   {Reason::kShadowPagesExhausted, "shadow_page_limit", ENOSPC},
                   Format("all of the %d shadow pages that the VM may have are "
                          "roots in use; raise the VM's shadow_page_limit",
                          limit()));
}

absl::Status ShadowPages::CheckLimit(uint64_t pages) {
  if (pages >= kMinLimit) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      {Reason::kInvalidRange, "shadow_page_limit", EINVAL},
      Format("shadow_page_limit is %d, but must be at least %d; use a "
             "larger number",
             pages, kMinLimit));
}

void ShadowPages::SetLimit(MmuWriteLocked& lock, uint64_t pages,
                           MmuCost* cost) {
  MMU_CHECK(pages >= kMinLimit);
  limit_was_asked_for_ = true;
  ChangeLimit(lock, pages, cost);
}

void ShadowPages::SetLimitForSlots(MmuWriteLocked& lock, uint64_t slot_pages,
                                   MmuCost* cost) {
  if (limit_was_asked_for_) return;
  ChangeLimit(lock, LimitForSlots(slot_pages), cost);
}

void ShadowPages::ChangeLimit(MmuWriteLocked& lock, uint64_t pages,
                              MmuCost* cost) {
  for (;;) {
    // The limit is never below the number of pages in use. A thread that gets
    // the lock in between must respect the new limit, but finds room as long as
    // pages can be zapped.
    limit_.store(std::max(pages, in_use()), std::memory_order_relaxed);
    if (in_use() <= pages) return;
    const uint64_t batch = std::min(in_use() - pages, ShadowZap::kBatch);
    if (zap_.ZapOldest(lock, batch, cost) == 0) return;
    if (lock.NeedYield()) lock.Yield();
  }
}

}  // namespace mmu
