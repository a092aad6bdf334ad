// Guest-physical memory as a guest kernel accesses it: through its direct map,
// with the kernel's own accesses.

#ifndef MMU_CORE_GUEST_KERNEL_DIRECT_MAP_MEMORY_H_
#define MMU_CORE_GUEST_KERNEL_DIRECT_MAP_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/physical_memory.h"

namespace mmu {

// Thread-compatible.
class DirectMapMemory final : public PhysicalMemory {
 public:
  explicit DirectMapMemory(GuestCpu& cpu) : cpu_(&cpu) {}

  // Later accesses are made by `cpu`, whose paging is as that of the one
  // before.
  void RunOn(GuestCpu& cpu) { cpu_ = &cpu; }

  // Sets the address at which guest-physical address 0 is mapped; 0 while
  // paging is off.
  void SetDirectMap(Gva direct_map) { direct_map_ = direct_map; }

 private:
  absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                      uint64_t* word) override;

  GuestCpu* cpu_;
  Gva direct_map_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_DIRECT_MAP_MEMORY_H_
