// What the scan of a generation examined, and what it did not.

#ifndef MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_
#define MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_

#include <cstdint>

#include "mmu_core/aging/aging.h"

namespace mmu {

// A value.
struct GenerationCoverage {
  AgeReach reach = {};       // without was_fast
  bool look_around = false;  // ScanScope::kLookAround
  // The scan was broken off; or where it came to a memslot that it began with,
  // it found another one, or the slot had moved away.
  bool incomplete = false;
  // Accessed bits were cleared and not recorded: there was no memory to, or
  // they were of such another slot. Then the generation is incomplete, too.
  bool lost = false;
  // Others cleared Accessed bits since the previous generation began. The pages
  // that they found young look old here.
  bool others_cleared = false;

  // Whether the scan examined each page in each MMU.
  bool whole() const;
  // Whether pages may look old, in this generation and in later ones, that were
  // accessed before it ended.
  bool hides_accesses() const { return lost || others_cleared; }

  // For GenerationTotals::coverage.
  uint32_t ToFlags() const;
  static GenerationCoverage FromFlags(uint32_t flags);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_
