// Sources of synthetic accesses: sequential, uniform, zipf, hot and cold.
//
// Every access is one aligned 8-byte word. Sequential vCPUs have disjoint
// shares. In the other patterns all vCPUs share the region and its hot pages,
// and each vCPU draws its own random numbers.

#ifndef MMU_CORE_GUEST_PATTERN_H_
#define MMU_CORE_GUEST_PATTERN_H_

#include <cstdint>
#include <memory>

#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/pattern_spec.h"

namespace mmu {

// Makes the source for one vCPU. Deterministic in its arguments. REQUIRES:
// Validate(spec, space.size_bytes(), vcpu_count) is OK and vcpu_index <
// vcpu_count.
std::unique_ptr<AccessSource> MakePattern(const PatternSpec& spec,
                                          const GpaSpace& space,
                                          uint32_t vcpu_index,
                                          uint32_t vcpu_count);

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PATTERN_H_
