#include "mmu_core/vm/held_back.h"

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

// Between two looks at what else there is to do. Nobody waits for that, so it
// need not be short; the end of what holds the fault back is noticed at once.
constexpr absl::Duration kLook = absl::Milliseconds(5);

bool IsHeldBack(const VmState& vm, Gfn gfn) {
  if (vm.invalidations.MaybeInvalidating(gfn)) return true;
  RcuReadGuard rcu;
  const Memslot* const slot = vm.slots.Active(/*as_id=*/0).FindByGfn(gfn);
  return slot != nullptr && slot->invalid();  // SLOT-25
}

}  // namespace

void AwaitRelease(VmState& vm, Vcpu& vcpu, Gfn gfn,
                  absl::FunctionRef<bool()> wanted) {
  MMU_DCHECK(!vcpu.gate().in_guest() && !InRcuReadSection());
  if (!IsHeldBack(vm, gfn) || wanted()) return;
  const int64_t begin = MonotonicNanos();
  AtHook(HookPoint::kHeldBackToWait);
  do {
    vm.invalidations.WaitWhile([&] { return IsHeldBack(vm, gfn); }, kLook);
  } while (IsHeldBack(vm, gfn) && !wanted());
  vcpu.stats().AddStall(StallCause::kInvalidation, MonotonicNanos() - begin);
}

}  // namespace mmu
