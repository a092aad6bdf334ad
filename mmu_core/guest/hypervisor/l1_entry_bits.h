// The bits of nested entries that the processor ignores and L1 uses.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_ENTRY_BITS_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_ENTRY_BITS_H_

#include <cstdint>

#include "mmu_core/guest_paging/guest_entry.h"

namespace mmu {

// The page is write-protected to detect writes, not to forbid them.
inline constexpr uint64_t kTracked = guest_entry::Bit(52);
// The page may have been written before its entry changed.
inline constexpr uint64_t kWasWritable = guest_entry::Bit(53);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_ENTRY_BITS_H_
