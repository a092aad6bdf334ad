// The addresses and the number of a program's pages.

#ifndef MMU_CORE_GUEST_KERNEL_PROGRAM_LAYOUT_H_
#define MMU_CORE_GUEST_KERNEL_PROGRAM_LAYOUT_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "mmu_core/guest/kernel/paging_geometry.h"

namespace mmu {

// Pages lie in regions of one large page each, spread over the address space. A
// value.
class ProgramLayout {
 public:
  // REQUIRES: pages > 0.
  ProgramLayout(const PagingGeometry& geometry, uint64_t pages);

  // The largest number of pages that each of `processes` can have in `memory`,
  // all with different contents; the page tables and the kernel's own memory
  // come on top. 0 if there is not even room for these.
  static uint64_t FittingPages(const GuestKernelOptions& kernel, int processes,
                               const GpaSpace& memory);

  uint64_t pages() const { return pages_; }
  uint64_t pages_per_region() const {
    return geometry_.LargePageBytes() / kPageSize;
  }
  uint64_t regions() const;
  // REQUIRES: page < pages().
  Gva GvaOf(uint64_t page) const;

 private:
  PagingGeometry geometry_;
  uint64_t pages_;
  uint64_t region_stride_bytes_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PROGRAM_LAYOUT_H_
