#include "mmu_core/vm/core/stage2_leaf_sizes.h"

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stage2/any_granule.h"

namespace mmu {

std::vector<uint64_t> Stage2LeafSizes(uint32_t granule_bytes) {
  std::vector<uint64_t> sizes;
  WithGranule(granule_bytes, [&]<typename G>() {
    for (Level level{1}; level <= G::kMaxLeafLevel; level = ParentOf(level)) {
      sizes.push_back(BytesPer<G>(level));
    }
  });
  return sizes;
}

}  // namespace mmu
