// Guest-physical memory as software in a guest uses it: loads and stores, and
// whole pages.

#ifndef MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_
#define MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"

namespace mmu {

// After the first failed access, all later ones do nothing and load 0; status()
// keeps the error. So a caller of many accesses checks status() once, at the
// end. Thread-compatible.
class PhysicalMemory {
 public:
  virtual ~PhysicalMemory() = default;

  // `size_bytes`: 4 or 8; `gpa` aligned to it.
  uint64_t Load(Gpa gpa, int size_bytes);
  void Store(Gpa gpa, int size_bytes, uint64_t value);

  void ZeroPage(Gfn gfn);
  void CopyPage(Gfn from, Gfn to);

  const absl::Status& status() const { return status_; }

 protected:
  // Makes one access of the processor, kRead or kWrite.
  virtual absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                              uint64_t* word) = 0;

 private:
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_PHYSICAL_MEMORY_H_
