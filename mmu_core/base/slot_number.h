// The number of a memslot in KVM's calls and dirty rings: the address space in
// the upper sixteen bits, the slot's id in the lower sixteen.

#ifndef MMU_CORE_BASE_SLOT_NUMBER_H_
#define MMU_CORE_BASE_SLOT_NUMBER_H_

#include <cstdint>

namespace mmu {

constexpr uint32_t PackSlot(int as_id, uint32_t id) {
  return static_cast<uint32_t>(as_id) << 16 | (id & 0xffff);
}
constexpr int AsIdOfSlot(uint32_t number) {
  return static_cast<int>(number >> 16);
}
constexpr uint32_t IdOfSlot(uint32_t number) { return number & 0xffff; }

static_assert(AsIdOfSlot(PackSlot(1, 0x7fff)) == 1 &&
              IdOfSlot(PackSlot(1, 0x7fff)) == 0x7fff);

}  // namespace mmu

#endif  // MMU_CORE_BASE_SLOT_NUMBER_H_
