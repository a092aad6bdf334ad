#include "mmu_core/vm/jobs/recover_huge_pages.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/op_timer.h"
#include "mmu_core/vm/core/slot_ranges.h"

namespace mmu {
namespace {

using SlotRanges = std::vector<std::pair<const Memslot*, GfnRange>>;

// The parts of `ranges` to recover, by slot. If `ranges` is empty, these are
// all slots. Returns an error if `ranges` is invalid.
absl::StatusOr<SlotRanges> RangesToRecover(
    const MemslotSet& set, const std::vector<GfnRange>& ranges) {
  SlotRanges work;
  if (ranges.empty()) {
    for (const Memslot* slot : set.slots())
      work.push_back({slot, slot->range()});
  }
  for (const GfnRange range : ranges) {
    if (absl::Status s = CheckCovered(set, range); !s.ok()) return s;
    for (const Memslot* slot : set.SlotsIn(range))
      work.push_back({slot, range});
  }
  for (const auto& [slot, range] : work) {
    if (slot->dirty_log_enabled()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       {Reason::kDirtyLogActive,
                        "ranges",
                        EBUSY,
                        {{"slot", absl::StrCat(slot->id)}}},
                       absl::StrCat("slot ", slot->id,
                                    " logs dirty pages, which needs small "
                                    "pages; stop its dirty log first"));
    }
  }
  return work;
}

}  // namespace

absl::Status CheckRecoverHugePages(const VmCore& vm,
                                   const std::vector<GfnRange>& ranges) {
  RcuReadGuard rcu;
  return WithMemory("ranges", "look at huge pages", [&] {
    return RangesToRecover(vm.slots.Active(0), ranges).status();
  });
}

absl::StatusOr<RecoverOutcome> RecoverHugePages(
    VmCore& vm, const std::vector<GfnRange>& ranges, MmuCost* cost,
    absl::Duration max_lock_hold) {
  OpTimer timer(cost, nullptr);
  const HoldLimit limit = HoldLimit::For(max_lock_hold);
  MutexLock lock(vm.slots.slots_lock);
  const absl::StatusOr<SlotRanges> work =
      WithMemory("ranges", "recover huge pages",
                 [&] { return RangesToRecover(vm.slots.Active(0), ranges); });
  if (!work.ok()) return work.status();
  RecoverOutcome recovered;
  for (const auto& [slot, range] : *work) {
    recovered += vm.mmus.Recover(*slot, range.Intersect(slot->range()),
                                 timer.cost(), limit);
  }
  return recovered;
}

}  // namespace mmu
