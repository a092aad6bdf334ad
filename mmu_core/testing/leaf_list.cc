#include "mmu_core/testing/leaf_list.h"

#include <algorithm>

#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

std::vector<GfnRange> TdpLeafs(const VmState& vm, GfnRange range) {
  std::vector<GfnRange> leafs;
  RcuReadGuard rcu;
  for (const TdpRoot* root = vm.tdp.roots().FirstRcu(RootFilter::kValid, 0);
       root != nullptr;
       root = vm.tdp.roots().NextRcu(root, RootFilter::kValid, 0)) {
    for (TdpCursor c(root->table(), root->level(), range, Level::k4K);
         c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) leafs.push_back(c.entry_range());
    }
  }
  return leafs;
}

std::vector<GfnRange> Stage2Leafs(const VmState& vm, GfnRange range) {
  std::vector<GfnRange> leafs;
  WithGranule(vm.config.stage2.granule_bytes, [&]<typename G>() {
    RcuReadGuard rcu;
    for (S2Cursor<G> c = vm.stage2->of<G>().CursorOver(range, Level{1});
         c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) leafs.push_back(c.entry_range());
    }
  });
  return leafs;
}

bool HasLeaf(RmapHead& head, MmuCounters& counters) {
  RmapReadLocked rmap(head, counters);
  for (RmapIterator it = rmap.Entries(); it.Valid(); it.Next()) {
    if (it.sptep().Load().IsPresent()) return true;
  }
  return false;
}

std::vector<GfnRange> ShadowLeafs(VmState& vm, GfnRange range) {
  std::vector<GfnRange> leafs;
  RcuReadGuard rcu;
  for (const Memslot* slot : vm.slots.Active(0).SlotsIn(range)) {
    if (slot->shadow_rmaps() == nullptr) continue;
    for (SlotRmapCursor c(*slot->shadow_rmaps(), range.Intersect(slot->range()),
                          Level::k4K, kMaxLeafLevel);
         c.Valid(); c.Next()) {
      if (!HasLeaf(c.head(), vm.counters.of(MmuKind::kShadow))) continue;
      leafs.push_back(
          GfnRange::Of(RoundDown(c.gfn(), c.level()), PagesPer(c.level())));
    }
  }
  return leafs;
}

}  // namespace

std::vector<GfnRange> LeafsOf(Vm& vm, MmuKind kind, GfnRange range) {
  std::vector<GfnRange> leafs;
  switch (kind) {
    case MmuKind::kTdp:
      leafs = TdpLeafs(vm.state(), range);
      break;
    case MmuKind::kShadow:
      leafs = ShadowLeafs(vm.state(), range);
      break;
    case MmuKind::kStage2:
      leafs = Stage2Leafs(vm.state(), range);
      break;
  }
  std::sort(leafs.begin(), leafs.end(), [](GfnRange a, GfnRange b) {
    return a.start != b.start ? a.start < b.start : a.end < b.end;
  });
  leafs.erase(std::unique(leafs.begin(), leafs.end()), leafs.end());
  return leafs;
}

}  // namespace mmu::testing
