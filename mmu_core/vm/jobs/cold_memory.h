// Tells memory that is known to be cold from memory of which nothing is known.

#ifndef MMU_CORE_VM_JOBS_COLD_MEMORY_H_
#define MMU_CORE_VM_JOBS_COLD_MEMORY_H_

#include <cstdint>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {

// The memory that was not accessed since a certain time, as far as the
// generations tell. A page is cold if
//
//   - the generation that found it young last ended by then; or none did, and
//     the first one that knew its memslot, where it is now, had begun by then;
//   - a later generation (in the second case: any) examined all pages in all
//     MMUs to its end (GenerationCoverage::whole), and found the page old;
//   - no generation that ended later hides accesses
//     (GenerationCoverage::hides_accesses).
//
// Where nobody knows, memory is not cold: nothing is if no remembered
// generation is that old (kKeptGenerations). What happened after the last whole
// generation is not known, nor what pages did before they were unmapped: with
// generations that are far apart, memory that has come into use since is cold
// still. A value.
class ColdMemory {
 public:
  // `view` is of `working_set`, and has the memslots of the present alone.
  // `since_nanos` is a time of the generations' clock.
  ColdMemory(const WorkingSet& working_set, const GenerationView& view,
             int64_t since_nanos);

  // Whether all pages of `block` are cold; `age` is that of the youngest.
  bool Contains(GfnRange block, GenerationAge age) const;

 private:
  const GenerationView view_;
  // All pages of this age and of greater ages are cold, but for kNeverYoung.
  GenerationAge first_cold_age_ = kNeverYoung;
  // Pages of memslots that a later generation knew first are not cold. 0: none
  // are.
  uint64_t newest_first_generation_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_COLD_MEMORY_H_
