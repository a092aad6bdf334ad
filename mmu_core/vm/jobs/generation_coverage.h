// What the scan of a generation examined, and what it did not.

#ifndef MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_
#define MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_

#include <cstdint>

#include "mmu_core/aging/aging.h"

namespace mmu {

// A value.
struct GenerationCoverage {
  AgeReach reach;            // without was_fast
  bool look_around = false;  // ScanScope::kLookAround
  // The scan was broken off, or a memslot came during the scan in the place of
  // one that the scan began with.
  bool incomplete = false;
  // Others cleared Accessed bits since the previous generation began. The pages
  // that they found young look old here.
  bool others_cleared = false;

  // Whether the scan examined each page in each MMU. If so, the pages that it
  // did not find young were old.
  bool whole() const;

  // For GenerationTotals::coverage.
  uint32_t ToFlags() const;
  static GenerationCoverage FromFlags(uint32_t flags);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_GENERATION_COVERAGE_H_
