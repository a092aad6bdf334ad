// The kind of a guest's kernel.

#ifndef MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_OPTIONS_H_
#define MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_OPTIONS_H_

#include <cstdint>

#include "mmu_core/guest/kernel/paging_geometry.h"

namespace mmu {

// A value.
struct GuestKernelOptions {
  PagingGeometry geometry = PagingGeometry::k4Level;
  // Programs' memory is mapped in large pages where possible.
  enum class LargePages : uint8_t { kNo, kYes } large_pages = LargePages::kNo;
  // How a CPU learns of stale translations of an address space that it has
  // cached under a PCID, but does not run (kernel_cpu.h): it compares
  // generations when it runs the address space next, or it is interrupted.
  enum class Cached : uint8_t {
    kCompare,
    kInterrupt
  } cached = Cached::kCompare;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_GUEST_KERNEL_OPTIONS_H_
