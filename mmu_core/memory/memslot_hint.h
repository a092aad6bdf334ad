// Remembers the memslot of a vCPU's last fault: the next fault is usually in it
// too.

#ifndef MMU_CORE_MEMORY_MEMSLOT_HINT_H_
#define MMU_CORE_MEMORY_MEMSLOT_HINT_H_

#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot_set.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class MemslotHint {
 public:
  // Returns active.FindByGfn(gfn). REQUIRES: as MemslotTable::Active; `active`
  // is its result, always for the same address space.
  const Memslot* Find(const MemslotSet& active, Gfn gfn) {
    // The memory of a set may be reused for another set, so the generation must
    // match, too. Nothing is cached during a swap (SLOT-22).
    if (ABSL_PREDICT_TRUE(GenerationMatches(generation_, active.generation()) &&
                          slot_->Contains(gfn))) {
      return slot_;
    }
    return FindSlow(active, gfn);
  }

 private:
  const Memslot* FindSlow(const MemslotSet& active, Gfn gfn) {
    const uint64_t generation = active.generation();
    const Memslot* slot = active.FindByGfn(gfn);
    const bool keep =
        slot != nullptr && GenerationMatches(generation, generation);
    generation_ = keep ? generation : kGenerationInProgress;
    slot_ = slot;
    return slot;
  }

  // A generation with this bit matches no other.
  uint64_t generation_ = kGenerationInProgress;
  const Memslot* slot_ = nullptr;  // belongs to the set with that generation
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_HINT_H_
