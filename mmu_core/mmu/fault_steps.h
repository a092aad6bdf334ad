// The common steps of faults in the TDP MMU and in the shadow MMU: the choice
// of a level (PF-30, PF-32), and the fast page fault (PF-10..18).

#ifndef MMU_CORE_MMU_FAULT_STEPS_H_
#define MMU_CORE_MMU_FAULT_STEPS_H_

#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

// Sets the fault's levels, at most `max`, and aligns its frame to the goal.
// `nx_huge_pages` may be null: no mitigation. REQUIRES: fault.slot; mmu_lock.
inline void ChooseFaultLevel(PageFault& fault, Level max,
                             const NxHugePages* nx_huge_pages) {
  fault.req_level = Level::k4K;
  fault.goal_level = Level::k4K;
  // A page of a logged slot is mapped small, so that one mark is one page.
  if (max == Level::k4K || fault.slot->dirty_log_enabled()) return;
  fault.req_level = fault.slot->MaxMappingLevel(fault.gfn, max);
  if (fault.req_level > Level::k4K && fault.kind == AccessKind::kExec &&
      nx_huge_pages != nullptr && nx_huge_pages->mitigated()) {
    fault.huge_page_disallowed = true;
    return;
  }
  fault.goal_level = fault.req_level;
  const uint64_t mask = PagesPer(fault.goal_level) - 1;
  // gfn and frame are congruent where a huge mapping is allowed (SLOT-42).
  MMU_DCHECK((fault.gfn.value() & mask) == (fault.pfn.value() & mask));
  fault.pfn = Pfn(fault.pfn.value() & ~mask);
}

// Lowers the goal by one level; the frame becomes that of the smaller page
// (PF-32).
inline void LowerFaultGoal(PageFault& fault) {
  const uint64_t below = PagesPer(fault.goal_level) - 1;
  fault.goal_level = ChildOf(fault.goal_level);
  const uint64_t within = fault.gfn.value() & below;
  fault.pfn =
      Pfn(fault.pfn.value() | (within & ~(PagesPer(fault.goal_level) - 1)));
}

// How often the fast fault retries a lost compare-exchange (PF-14).
inline constexpr int kFastFaultRetries = 4;

// The present leaf at the end of a walk.
struct FaultLeaf {
  SpteSlot* slot = nullptr;  // null: the walk did not end in one
  Spte spte;
  Level level = Level::k4K;
};

// Repairs the leaf on the path to fault.gfn in place, without mmu_lock (PF-13).
// `find` repeats the walk and returns a FaultLeaf; it is called in an RCU read
// section. REQUIRES: the mapping does not depend on a guest's tables (PF-11);
// otherwise as for TdpMmu::FastFault.
template <typename FindLeaf>
FaultResult FastPageFault(const SpteFormat& format, PageFault& fault,
                          FindLeaf find) {
  // A fault on a non-present entry can be repaired here only if access tracking
  // took its permissions, which does not happen with A/D bits. A present entry
  // lacks only write permission, if a write caused the fault (PF-10).
  if (fault.present ? fault.kind != AccessKind::kWrite : format.has_ad()) {
    return FaultResult::kInvalid;
  }
  RcuReadGuard rcu;
  for (int failures = 0; failures <= kFastFaultRetries; ++failures) {
    const FaultLeaf leaf = find();
    if (leaf.slot == nullptr) return FaultResult::kInvalid;
    Spte spte = leaf.spte;
    if (format.Allows(spte, fault.kind)) return FaultResult::kSpurious;
    Spte wanted = spte;
    if (format.IsAccessTracked(spte)) wanted = format.WithAccessRestored(spte);
    const bool gives_write =
        fault.kind == AccessKind::kWrite && format.IsMmuWritable(spte);
    if (gives_write) {
      // Only one page of a huge page would be marked; the slow path splits it.
      if (leaf.level > Level::k4K && fault.slot->dirty_log_enabled()) {
        return FaultResult::kInvalid;
      }
      wanted = format.WithWrite(wanted);
    }
    if (!format.Allows(wanted, fault.kind)) return FaultResult::kInvalid;
    AtHook(HookPoint::kFastFaultToExchange);
    if (!leaf.slot->CompareExchange(spte, wanted)) continue;
    if (!gives_write) return FaultResult::kFixed;
    AtHook(HookPoint::kExchangeToMark);
    // After the exchange, never before (PF-15). In the other order:
    //   1. this thread marks        2. CLEAR takes the mark, protects (nothing
    //   3. this thread sets W          to do: W is still clear), flushes
    // and the write that follows would be in no log. In this order a CLEAR
    // between exchange and mark leaves a marked, protected page, which is
    // reported once too often. The guest's write comes after both.
    if (MarkPageDirty(*fault.slot, fault.gfn, fault.ring)) {
      fault.dirtied_pages = 1;
    }
    return FaultResult::kFixed;
  }
  return FaultResult::kInvalid;
}

}  // namespace mmu

#endif  // MMU_CORE_MMU_FAULT_STEPS_H_
