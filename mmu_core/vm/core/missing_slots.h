// What to do about a range in which no memslot lies.

#ifndef MMU_CORE_VM_CORE_MISSING_SLOTS_H_
#define MMU_CORE_VM_CORE_MISSING_SLOTS_H_

#include <cstdint>

namespace mmu {

// kRefuse: it was named, and that is a mistake. kSkip: it stood for a slot that
// there was, and that has gone since; nothing is mapped there.
enum class MissingSlots : uint8_t { kRefuse, kSkip };

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_MISSING_SLOTS_H_
