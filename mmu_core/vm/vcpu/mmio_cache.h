// Remembers a vCPU's last access outside of all memslots, so that the next
// access there needs no memslot lookup (PF-24, PF-35, PF-36).

#ifndef MMU_CORE_VM_VCPU_MMIO_CACHE_H_
#define MMU_CORE_VM_VCPU_MMIO_CACHE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot_set.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class MmioCache {
 public:
  // Records that the memslots of `generation` have no memory at `gfn`.
  void Remember(Gfn gfn, uint64_t generation) {
    gfn_ = gfn;
    generation_ = generation;
  }
  void Forget() { generation_ = kGenerationInProgress; }
  // Returns whether the remembered fact is about `gfn` and still holds.
  bool Matches(Gfn gfn, uint64_t current_generation) const {
    return gfn == gfn_ && GenerationMatches(generation_, current_generation);
  }

 private:
  Gfn gfn_;
  uint64_t generation_ = kGenerationInProgress;  // matches no generation
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_MMIO_CACHE_H_
