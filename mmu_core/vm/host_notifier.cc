#include "mmu_core/vm/host_notifier.h"

#include <optional>
#include <vector>

#include "mmu_core/aging/aging.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

struct Concerned {
  int as_id;
  GfnRange gfns;
};

// The guest frames that have pages of `range`, also those that only touch it
// (AGE-01). They stay the same while an invalidation is announced (SLOT-23).
std::vector<Concerned> GfnsOf(VmState& vm, HvaRange range) {
  std::vector<Concerned> all;
  RcuReadGuard rcu;
  for (int as_id = 0; as_id < vm.slots.address_spaces(); ++as_id) {
    vm.slots.Active(as_id).ForEachInHvaRange(
        range.start, range.end, [&](const Memslot&, GfnRange gfns) {
          all.push_back({as_id, gfns});
        });
  }
  return all;
}

bool AgeRange(VmState& vm, HvaRange range, AgeMode mode) {
  bool young = false;
  for (const Concerned& concerned : GfnsOf(vm, range)) {
    AgeResult result;
    result.young.resize((concerned.gfns.pages() + 63) / 64);
    vm.tdp.Age(concerned.as_id, concerned.gfns, mode, result, nullptr);
    young |= result.young_page_count > 0;
    // A test has its answer; to clear means to clear everywhere.
    if (young && mode == AgeMode::kTest) break;
  }
  return young;
}

}  // namespace

void InvalidateRangeStart(VmState& vm, HvaRange range, MayYield may_yield) {
  vm.invalidations.Announce();
  const std::vector<Concerned> concerned = GfnsOf(vm, range);
  if (concerned.empty()) return;
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kNotifier);
  vm.invalidations.Begin();
  for (const Concerned& one : concerned) vm.invalidations.AddRange(one.gfns);
  for (const Concerned& one : concerned) {
    vm.tdp.ZapLeafs(lock, one.as_id, one.gfns, RootFilter::kAll,
                    FlushReason::kNotifier, nullptr, may_yield);
  }
}

void InvalidateRangeEnd(VmState& vm, HvaRange range) {
  if (!GfnsOf(vm, range).empty()) {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kNotifier);
    vm.invalidations.End();
  }
  vm.invalidations.Conclude();
}

bool TestYoung(VmState& vm, HvaRange range) {
  return AgeRange(vm, range, AgeMode::kTest);
}

bool ClearYoung(VmState& vm, HvaRange range) {
  return AgeRange(vm, range, AgeMode::kTestAndClear);
}

void ZapGfnRange(VmState& vm, int as_id, GfnRange range) {
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap);
  vm.invalidations.Begin();
  vm.invalidations.AddRange(range);
  vm.tdp.ZapLeafs(lock, as_id, range, RootFilter::kValid, FlushReason::kZap,
                  nullptr);
  vm.invalidations.End();
}

}  // namespace mmu
