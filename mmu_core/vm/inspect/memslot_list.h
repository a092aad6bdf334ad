// Lists the memslots of a VM, for external observers.

#ifndef MMU_CORE_VM_INSPECT_MEMSLOT_LIST_H_
#define MMU_CORE_VM_INSPECT_MEMSLOT_LIST_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// The Vm functions of the same names. They read and take no lock.
std::vector<MemslotInfo> Memslots(const VmCore& vm);
absl::optional<MemslotInfo> FindMemslot(const VmCore& vm, int address_space,
                                        uint32_t slot);
GpaSpace GuestSpace(const VmCore& vm);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_MEMSLOT_LIST_H_
