// What a vCPU's last access outside of all memslots was, so that the next one
// there need not be looked up (PF-24, PF-35, PF-36).

#ifndef MMU_CORE_VM_VCPU_MMIO_CACHE_H_
#define MMU_CORE_VM_VCPU_MMIO_CACHE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot_set.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class MmioCache {
 public:
  // There is no memory at `gfn` in the memslots of `generation`.
  void Remember(Gfn gfn, uint64_t generation) {
    gfn_ = gfn;
    generation_ = generation;
  }
  void Forget() { generation_ = kGenerationInProgress; }
  // Whether that still holds for `gfn` now.
  bool Matches(Gfn gfn, uint64_t current_generation) const {
    return gfn == gfn_ && GenerationMatches(generation_, current_generation);
  }

 private:
  Gfn gfn_;
  uint64_t generation_ = kGenerationInProgress;  // matches no generation
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_MMIO_CACHE_H_
