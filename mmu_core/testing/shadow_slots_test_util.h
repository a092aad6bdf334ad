// Memslots for shadow pages without a VM, for tests.

#ifndef MMU_CORE_TESTING_SHADOW_SLOTS_TEST_UTIL_H_
#define MMU_CORE_TESTING_SHADOW_SLOTS_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/rmap/lazy_slot_rmaps.h"
#include "mmu_core/shadow/shadow_vm.h"

namespace mmu::testing {

// Lets `slot` log dirty pages, in a bitmap.
inline void LogDirtyPagesOf(Memslot& slot) {
  slot.flags |= kMemslotLogDirtyPages;
  slot.dirty_bitmap =
      std::make_shared<DirtyBitmap>(slot.npages, InitiallySet::kNo);
}

class ShadowTestSlots : public ShadowVm {
 public:
  const Memslot* SlotOf(int as_id, Gfn gfn) override {
    for (const auto& slot : slots_) {
      if (slot->as_id == as_id && slot->Contains(gfn)) return slot.get();
    }
    return nullptr;
  }
  Memslot& slot(size_t id) { return *slots_[id]; }
  void ForEachSlot(absl::FunctionRef<void(const Memslot&)> fn) const {
    for (const auto& slot : slots_) fn(*slot);
  }

 protected:
  // Places `slot`, which has its address space and its host memory, at `range`.
  Memslot& Add(std::unique_ptr<Memslot> slot, GfnRange range) {
    slot->id = static_cast<uint32_t>(slots_.size());
    slot->base_gfn = range.start;
    slot->npages = range.pages();
    slot->lpage_info =
        std::make_shared<LpageInfo>(range.start, range.pages(), slot->hva);
    slot->rmaps = std::make_shared<LazySlotRmaps>(range);
    MMU_CHECK(gate_.PrepareSlot(*slot->rmaps).ok());
    gate_.PublishSlot(*slot->rmaps, [] {});
    slots_.push_back(std::move(slot));
    return *slots_.back();
  }

 private:
  ShadowRootGate gate_{ShadowRootGate::TdpMmu::kDisabled};
  std::vector<std::unique_ptr<Memslot>> slots_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_SHADOW_SLOTS_TEST_UTIL_H_
