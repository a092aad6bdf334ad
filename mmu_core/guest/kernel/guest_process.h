// A process of a guest's kernel.

#ifndef MMU_CORE_GUEST_KERNEL_GUEST_PROCESS_H_
#define MMU_CORE_GUEST_KERNEL_GUEST_PROCESS_H_

#include <cstdint>

#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest/kernel/physical_memory.h"

namespace mmu {

// Externally synchronised by the kernel's lock.
struct GuestProcess {
  GuestProcess(int number, const PagingGeometry& geometry,
               PhysicalMemory& memory, FrameAllocator& frames)
      : id(number), tables(geometry, memory, frames) {}

  const int id;  // from 1; never used again
  GuestPageTables tables;
  // Incremented by each change of the tables after which a CPU must forget
  // something. A CPU whose cached translations are of an older generation may
  // have stale ones among them.
  uint64_t tlb_gen = 1;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_PROCESS_H_
