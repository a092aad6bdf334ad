// A guest kernel's own view of guest-physical memory: loads and stores through
// the kernel's direct map, as the kernel's own accesses.

#ifndef MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_
#define MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/guest_cpu.h"

namespace mmu {

// The first access that fails is remembered; all later ones do nothing and load
// 0. So whoever makes many looks at status() once, at the end.
// Thread-compatible.
class PhysicalMemory {
 public:
  explicit PhysicalMemory(GuestCpu& cpu) : cpu_(cpu) {}

  // Where guest-physical address 0 is mapped; 0 while paging is off.
  void SetDirectMap(Gva direct_map) { direct_map_ = direct_map; }

  // `size_bytes`: 4 or 8; `gpa` aligned to it.
  uint64_t Load(Gpa gpa, int size_bytes);
  void Store(Gpa gpa, int size_bytes, uint64_t value);

  void ZeroPage(Gfn gfn);
  void CopyPage(Gfn from, Gfn to);

  const absl::Status& status() const { return status_; }

 private:
  void Access(Gpa gpa, int size_bytes, AccessKind kind, uint64_t* word);

  GuestCpu& cpu_;
  Gva direct_map_;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_
