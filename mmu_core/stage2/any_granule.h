// Choosing the code for a granule that is known at run time only.

#ifndef MMU_CORE_STAGE2_ANY_GRANULE_H_
#define MMU_CORE_STAGE2_ANY_GRANULE_H_

#include <cstdint>

#include "mmu_core/base/arm_geometry.h"

namespace mmu {

constexpr bool IsGranule(uint64_t bytes) {
  return bytes == Arm4K::kGranuleBytes || bytes == Arm16K::kGranuleBytes ||
         bytes == Arm64K::kGranuleBytes;
}

// Calls fn.template operator()<G>() with the geometry of the granule.
// REQUIRES: IsGranule(bytes).
template <typename Fn>
void WithGranule(uint64_t bytes, Fn fn) {
  switch (bytes) {
    case Arm4K::kGranuleBytes:
      return fn.template operator()<Arm4K>();
    case Arm16K::kGranuleBytes:
      return fn.template operator()<Arm16K>();
    default:
      return fn.template operator()<Arm64K>();
  }
}

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_ANY_GRANULE_H_
