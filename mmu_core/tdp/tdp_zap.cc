// Roots, and making SPTEs non-present (TDP-01..09, TDP-33..38).

#include <array>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

// All gfns that a root can address.
GfnRange WholeRoot(Level root_level) {
  return {Gfn(0), Gfn(PagesPer(root_level) * kEntriesPerTable)};
}

}  // namespace

TdpMmu::TdpMmu(const TdpParts& parts, const TdpOptions& options)
    : parts_(parts),
      options_(options),
      updater_(parts.format, parts.counters,
               parts.nx_huge_pages.of(MmuKind::kTdp)) {}

TdpMmu::~TdpMmu() {
  {
    const Reclaim reclaim;
    {
      MmuWriteLocked lock(parts_.lock, LockOp::kZap);
      roots_.InvalidateAll();
    }
    MmuReadLocked lock(parts_.lock, LockOp::kZap);
    ZapInvalidatedRoots(lock);
  }
  RcuBarrier();
  MMU_CHECK(parts_.counters.Tables() == 0);
}

absl::StatusOr<RootRef> TdpMmu::LoadRoot(int as_id, TableCache& cache) {
  if (absl::Status status = cache.TopUp(1); !status.ok()) return status;
  std::unique_ptr<TdpRoot> spare(new (std::nothrow) TdpRoot);
  if (spare == nullptr) return NoMemory("", "load a root");
  ShadowPage* page = cache.Take();
  page->table->FillUnpublished(Spte::Initial());
  RootRef root;
  {
    MmuReadLocked lock(parts_.lock, LockOp::kFault);
    root = roots_.FindOrCreate(PageRole::Direct(options_.root_level, as_id),
                               page, spare);
  }
  if (page != nullptr) cache.Put(page);
  return root;
}

void TdpMmu::FastZapAll(MmuCost* cost, LockOp op) {
  // The Reclaim must begin before the first table becomes unreachable. The zap
  // itself begins with the leafs and unlinks tables late.
  const Reclaim reclaim;
  {
    MmuWriteLocked lock(parts_.lock, op, cost);
    roots_.InvalidateAll();
    AtHook(HookPoint::kInvalidateToRequest);
    // The request is made under the same hold of the lock. A vCPU that loads a
    // root later finds only valid roots. A vCPU that has loaded an invalid root
    // before sees the request before its next access (TDP-34).
    parts_.tlb.remote().Request(kFreeObsoleteRoots);
  }
  MmuReadLocked lock(parts_.lock, op, cost);
  ZapInvalidatedRoots(lock);
}

void TdpMmu::ZapInvalidatedRoots(MmuReadLocked& lock) {
  while (RootRef root = roots_.TakeScheduled()) {
    ZapRoot(lock, *root);
    roots_.PutMmuReference(*root);
  }
}

// Small entries first: tearing down a whole subtree at once would block all
// other threads meanwhile. So each pass leaves empty tables to the next pass
// (TDP-35). No flush: no vCPU can use this root any more, and each vCPU flushes
// when it loads another root.
void TdpMmu::ZapRoot(MmuReadLocked& lock, TdpRoot& root) {
  MMU_DCHECK(root.IsInvalid());
  const std::array<Level, 4> passes = {Level::k4K, Level::k2M, Level::k1G,
                                       root.level()};
  for (const Level pass : passes) {
    YieldPoint<MmuReadLocked> yield(lock);
    for (TdpCursor c(root.table(), root.level(), WholeRoot(root.level()), pass);
         c.Valid(); c.Next()) {
      if (yield.MaybeYield(c, nullptr, nullptr)) continue;
      if (c.level() > pass) continue;
      while (c.old_spte().IsPresent() &&
             !updater_.Update(lock, c, Spte::Initial())) {
      }
    }
  }
}

bool TdpMmu::ZapLeafs(MmuWriteLocked& lock, int as_id, GfnRange range,
                      RootFilter filter, FlushReason reason, MmuCost* cost,
                      MayYield may_yield) {
  bool zapped = false;
  for (RootRef root = roots_.First(filter, as_id); root;
       root = roots_.Next(std::move(root), filter, as_id)) {
    TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, reason);
    YieldPoint<MmuWriteLocked> yield(lock);
    for (TdpCursor c(root->table(), root->level(), range, Level::k4K);
         c.Valid(); c.Next()) {
      // No vCPU uses an invalid root, so it needs no flush (TLB-07), not at a
      // yield either.
      TlbFlushBatch* const owed = root->IsInvalid() ? nullptr : &batch;
      if (may_yield == MayYield::kYes && yield.MaybeYield(c, owed, cost)) {
        continue;
      }
      if (cost != nullptr) ++cost->sptes_visited_count;
      if (!c.IsPresentLeaf()) continue;
      updater_.Update(lock, c, Spte::Initial());
      batch.Add(c.entry_range());
      zapped = true;
    }
    // Flush while the lock and the RCU section are still held (TLB-06, TLB-10).
    if (root->IsInvalid()) {
      batch.Discard(FlushDiscard::kRootUnreachable);
    } else if (batch.pending()) {
      batch.Flush(cost);
    }
  }
  return zapped;
}

}  // namespace mmu
