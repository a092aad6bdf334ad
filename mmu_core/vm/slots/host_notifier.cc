#include "mmu_core/vm/slots/host_notifier.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/core/age_pages.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {
namespace {

// A slot and gfns of it. The slot is a copy, which keeps its rmaps: a walk may
// leave the RCU section in which the slot was found.
struct Concerned {
  Memslot slot;
  GfnRange gfns;
};

// Calls `fn` for each slot with pages of `range`.
template <typename Fn>
void ForEachSlot(VmCore& vm, HvaRange range, Fn fn) {
  RcuReadGuard rcu;
  for (int as_id = 0; as_id < vm.slots.address_spaces(); ++as_id) {
    vm.slots.Active(as_id).ForEachInHvaRange(range.start, range.end, fn);
  }
}

// The slots and gfns with a page that overlaps `range`, even in part (AGE-01).
// They do not change while an invalidation is announced (SLOT-23).
std::vector<Concerned> GfnsOf(VmCore& vm, HvaRange range) {
  std::vector<Concerned> all;
  ForEachSlot(vm, range, [&](const Memslot& slot, GfnRange gfns) {
    all.push_back({slot, gfns});
  });
  return all;
}

// Widens `gfns`, a part of the slot, to whole host pages within the slot, or to
// whole granules where those are larger (RACE-24):
//
//   1. an invalidation: unmaps pages [4, 8)
//   2. fault on page 0: is outside of the range, so it need not retry; finds
//      the whole host page and maps it by one entry
//   3. the host: takes pages [4, 8) away, or makes them read-only; the entry
//      of 2 still maps them
//
// The widened range contains page 0, and the fault waits.
GfnRange ToHostPages(const VmCore& vm, const Memslot& slot, GfnRange gfns) {
  if (slot.backing == nullptr) return gfns;
  const uint64_t pages = std::max(PagesPer(slot.backing->host_page_level()),
                                  HostPageBytes(vm.config) / kPageSize);
  // In host pages, which may not be aligned like guest pages (SLOT-42).
  const uint64_t base = slot.PfnOf(slot.base_gfn).value();
  const uint64_t first = base + slot.PageOf(gfns.start);
  const uint64_t end = base + (gfns.end - slot.base_gfn);
  const uint64_t from = std::max(first / pages * pages, base) - base;
  const uint64_t to =
      std::min((end + pages - 1) / pages * pages - base, slot.npages);
  return {slot.base_gfn + from, slot.base_gfn + to};
}

// Begins an announced invalidation and zaps the leafs of `range`. Does nothing
// if no slot has pages of `range`.
void BeginAndUnmap(VmCore& vm, HvaRange range, MayYield may_yield) {
  std::vector<Concerned> concerned = GfnsOf(vm, range);
  if (concerned.empty()) return;
  for (Concerned& one : concerned)
    one.gfns = ToHostPages(vm, one.slot, one.gfns);
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kNotifier);
  vm.invalidations.Begin();
  for (const Concerned& one : concerned) vm.invalidations.AddRange(one.gfns);
  for (const Concerned& one : concerned) {
    vm.mmus.ZapLeafs(lock, one.slot, one.gfns, FlushReason::kNotifier,
                     may_yield, nullptr);
  }
}

// Calls `fn` for each slot's part of the range that has a young page.
template <typename Fn>
HostYoung AgeRange(VmCore& vm, HvaRange range, AgeMode mode, FastOnly fast_only,
                   Fn fn) {
  HostYoung answer;
  // Without an MMU that ages fast there is nothing to do (AGE-34).
  if (fast_only == FastOnly::kYes && !vm.mmus.AgesFast()) return answer;
  if (mode == AgeMode::kTestAndClear) vm.working_set.NoteClear();
  for (const Concerned& concerned : GfnsOf(vm, range)) {
    const AgeResult result =
        AgePages(vm, concerned.slot.as_id, concerned.gfns, mode,
                 {.fast_only = fast_only, .until = AgeUntil::kFirstYoung},
                 /*cost=*/nullptr);
    answer.was_fast |= result.reach.was_fast;
    if (result.young_page_count == 0) continue;
    answer.young = true;
    fn(concerned.gfns);
    // A test may stop at the first young page. A clear must continue in all
    // slots.
    if (mode == AgeMode::kTest) break;
  }
  return answer;
}

}  // namespace

void InvalidateRangeStart(VmCore& vm, HvaRange range, MayYield may_yield) {
  vm.invalidations.Announce();
  BeginAndUnmap(vm, range, may_yield);
}

void InvalidateRangeEnd(VmCore& vm, HvaRange range) {
  if (!GfnsOf(vm, range).empty()) {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kNotifier);
    vm.invalidations.End();
  }
  vm.invalidations.Conclude();
}

void SetHostAccess(VmCore& vm, HvaRange range, HostAccess access) {
  vm.invalidations.Announce();
  BeginAndUnmap(vm, range, MayYield::kYes);
  AtHook(HookPoint::kUnmapToChange);
  ForEachSlot(vm, range, [&](const Memslot& slot, GfnRange gfns) {
    slot.backing->SetHostAccess(slot.HvaOf(gfns.start), gfns.bytes(), access);
  });
  InvalidateRangeEnd(vm, range);
}

HostYoung TestYoung(VmCore& vm, HvaRange range, FastOnly fast_only) {
  return AgeRange(vm, range, AgeMode::kTest, fast_only, [](GfnRange) {});
}

HostYoung ClearYoung(VmCore& vm, HvaRange range, FastOnly fast_only) {
  return AgeRange(vm, range, AgeMode::kTestAndClear, fast_only,
                  [](GfnRange) {});
}

HostYoung ClearFlushYoung(VmCore& vm, HvaRange range) {
  TlbFlushBatch batch(vm.tlb, FlushScope::kRange, FlushReason::kAge);
  const HostYoung answer = AgeRange(vm, range, AgeMode::kTestAndClear,
                                    FastOnly::kNo, [&](GfnRange gfns) {
                                      if (vm.mmus.FlushesAged())
                                        batch.Add(gfns);
                                    });
  if (batch.pending()) batch.Flush(/*cost=*/nullptr);
  return answer;
}

void ZapGfnRange(VmCore& vm, int as_id, GfnRange range) {
  // The slots do not change while the invalidation is announced (SLOT-23). So
  // no slot can be added and mapped between the lookup and the zap.
  vm.invalidations.Announce();
  std::vector<Concerned> concerned;
  {
    RcuReadGuard rcu;
    for (const Memslot* slot : vm.slots.Active(as_id).SlotsIn(range)) {
      concerned.push_back({*slot, range.Intersect(slot->range())});
    }
  }
  {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap);
    vm.invalidations.Begin();
    vm.invalidations.AddRange(range);
    for (const Concerned& one : concerned) {
      vm.invalidations.AddRange(ToHostPages(vm, one.slot, one.gfns));
    }
    for (const Concerned& one : concerned) {
      vm.mmus.ZapLeafs(lock, one.slot, one.gfns, FlushReason::kZap,
                       MayYield::kYes, nullptr);
    }
    vm.invalidations.End();
  }
  vm.invalidations.Conclude();
}

}  // namespace mmu
