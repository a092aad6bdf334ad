#include "mmu_core/tlb/vcpu_tlb.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"

namespace mmu {

VcpuTlb::VcpuTlb() : slots_(std::make_unique<Slot[]>(kSlots)) {
  static_assert(sizeof(Slot) == 64);
}

void VcpuTlb::Insert(const TlbEntry& entry) {
  MMU_DCHECK(entry.level <= kMaxLeafLevel);
  MMU_DCHECK(IsAligned(entry.base_page, entry.level));
  MMU_DCHECK(entry.base_page.value() >> kPageNumberBits == 0);
  Slot& slot = slots_[IndexOfSlot(entry.base_page, entry.level)];
  slot.tag = TagOf(entry.base_page, entry.level);
  slot.entry = entry;
}

void VcpuTlb::FlushAll() {
  if (++epoch_ >> kEpochBits == 0) return;
  // The epochs are used up: empty the slots, or entries of epoch 1 would become
  // valid again.
  std::fill_n(slots_.get(), kSlots, Slot());
  epoch_ = 1;
}

void VcpuTlb::FlushPage(PageNumber page) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    Slot& slot = slots_[IndexOfSlot(page, level)];
    if (slot.tag == TagOf(page, level)) slot.tag = 0;
  }
}

void VcpuTlb::DropRandom(uint64_t random) { slots_[random % kSlots].tag = 0; }

}  // namespace mmu
