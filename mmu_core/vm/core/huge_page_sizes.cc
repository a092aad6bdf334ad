#include "mmu_core/vm/core/huge_page_sizes.h"

#include <vector>

#include "mmu_core/base/level.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"

namespace mmu {

HugePageSizes HugePageSizesOf(const VmConfig& config) {
  if (!RunsOnStage2(config)) {
    return {.smallest = BytesPer(Level::k2M), .has_1g = true};
  }
  const std::vector<uint64_t> leafs =
      Stage2LeafSizes(config.stage2.granule_bytes);
  return {.smallest = leafs[1], .has_1g = leafs.size() > 2};
}

}  // namespace mmu
