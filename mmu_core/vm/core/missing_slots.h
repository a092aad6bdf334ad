// How to treat a range without a memslot.

#ifndef MMU_CORE_VM_CORE_MISSING_SLOTS_H_
#define MMU_CORE_VM_CORE_MISSING_SLOTS_H_

#include <cstdint>

namespace mmu {

// kRefuse: the caller named the range, so it is an error. kSkip: the range was
// a slot that has been deleted since; nothing is mapped there.
enum class MissingSlots : uint8_t { kRefuse, kSkip };

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_MISSING_SLOTS_H_
