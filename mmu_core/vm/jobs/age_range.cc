#include "mmu_core/vm/jobs/age_range.h"

#include <cerrno>
#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/age_pages.h"
#include "mmu_core/vm/core/op_timer.h"
#include "mmu_core/vm/core/slot_ranges.h"

namespace mmu {
namespace {

// Names the first MMU that does not age fast.
absl::Status FastAgingUnavailable(const VmCore& vm, const AgeReach& reach) {
  size_t kind = 0;
  while (!reach.mmus[kind].skipped) ++kind;
  const std::string mmu(ToString(static_cast<MmuKind>(kind)));
  const std::string lock(
      ToString(vm.mmus.aging_lock(static_cast<MmuKind>(kind))));
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kFastAgingUnavailable,
       "lock_mode",
       EBUSY,
       {{"mmu", mmu}, {"lock", lock}}},
      absl::StrCat("the ", mmu, " MMU is in use and takes a lock (", lock,
                   ") to age pages, which lock_mode LOCKLESS_ONLY forbids; "
                   "allow it with MAY_LOCK, or leave the MMU out with "
                   "slow_mmus SKIP"));
}

}  // namespace

absl::StatusOr<AgeResult> AgeRange(VmCore& vm, GfnRange range, AgeMode mode,
                                   MmuCost* cost, Gfn young_until,
                                   MissingSlots missing,
                                   const AgeOptions& options,
                                   AgedFor aged_for) {
  OpTimer timer(cost, &vm.counters.aging);
  {
    RcuReadGuard rcu;
    if (range.empty() || missing == MissingSlots::kRefuse) {
      if (absl::Status s = CheckCovered(vm.slots.Active(0), range); !s.ok()) {
        return s;
      }
    }
  }
  if (mode == AgeMode::kTestAndClear && aged_for == AgedFor::kCaller) {
    vm.working_set.NoteClear();
  }
  AgeResult result = AgePages(vm, /*as_id=*/0, range, mode, options,
                              timer.cost(), young_until);
  if (options.slow == SlowMmus::kRefuse && result.reach.skipped_any()) {
    return FastAgingUnavailable(vm, result.reach);
  }
  vm.counters.of(vm.guest_mmu())
      .CountAged(result.reach.lock(), result.young_page_count,
                 result.old_page_count);
  return result;
}

absl::Status CheckSlowMmus(VmCore& vm, const AgeOptions& options) {
  if (options.fast_only == FastOnly::kNo || options.slow != SlowMmus::kRefuse) {
    return absl::OkStatus();
  }
  const AgeReach reach = AgePages(vm, /*as_id=*/0, GfnRange(), AgeMode::kTest,
                                  options, /*cost=*/nullptr)
                             .reach;
  return reach.skipped_any() ? FastAgingUnavailable(vm, reach)
                             : absl::OkStatus();
}

}  // namespace mmu
