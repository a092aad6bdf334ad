// Tells memory that is known to be cold from memory of which nothing is known.

#ifndef MMU_CORE_VM_JOBS_COLD_MEMORY_H_
#define MMU_CORE_VM_JOBS_COLD_MEMORY_H_

#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {

// The memory that was not accessed for some time, as far as the generations
// tell. A page is cold if
//
//   - the generation that found it young last ended at least that long ago; or
//     none did, and the first one that knew its memslot began that long ago;
//   - a later generation (in the second case: any) examined all pages in all
//     MMUs to its end (GenerationCoverage::whole), and found the page old.
//
// What happened after that generation is not known: with generations that are
// far apart, memory that has come into use since is cold still. A value, of the
// time of its construction.
class ColdMemory {
 public:
  // `view` is of `working_set`, and has the memslots of the present alone.
  ColdMemory(const WorkingSet& working_set, const GenerationView& view,
             absl::Duration cold_after);

  // Whether all pages of `block` are cold; `age` is that of the youngest.
  bool Contains(GfnRange block, GenerationAge age) const;

 private:
  const GenerationView view_;
  // All pages of this age and of greater ages are cold, but for kNeverYoung.
  GenerationAge first_cold_age_ = kNeverYoung;
  // Pages of memslots that a later generation knew first are not cold.
  uint64_t newest_first_generation_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_COLD_MEMORY_H_
