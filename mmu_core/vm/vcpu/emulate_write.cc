#include "mmu_core/vm/vcpu/emulate_write.h"

#include "mmu_core/base/check.h"
#include "mmu_core/vm/core/mmu_set.h"

namespace mmu {

EmulatedWrite EmulateGuestWrite(MmuSet& mmus, GuestWords& memory, Gpa gpa,
                                int size_bytes, uint64_t word) {
  MMU_DCHECK(size_bytes == 4 || size_bytes == 8);
  const WordSize size = size_bytes == 4 ? WordSize::k4 : WordSize::k8;
  if (size == WordSize::k4) word &= 0xffff'ffff;
  uint64_t old = 0;
  for (;;) {
    GuestWordResult result = memory.Read(gpa, size, &old);
    if (result == GuestWordResult::kDone) {
      result = memory.CompareExchange(gpa, size, old, word);
    }
    if (result == GuestWordResult::kDone) break;
    // The host has forbidden the write since the fault, or taken the page away:
    // the next fault reports that. A full ring is handled before the next
    // access.
    if (result == GuestWordResult::kNoSlot ||
        result == GuestWordResult::kHostReadonly ||
        result == GuestWordResult::kFrameMissing ||
        result == GuestWordResult::kRingFull) {
      return EmulatedWrite::kRetry;
    }
    if (result != GuestWordResult::kChanged) return EmulatedWrite::kCannot;
  }
  mmus.GuestWrote(/*as_id=*/0, gpa, size_bytes, memory, /*cost=*/nullptr);
  return EmulatedWrite::kDone;
}

}  // namespace mmu
