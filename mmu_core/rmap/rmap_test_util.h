// Inspecting the memory layout of an rmap, for tests.

#ifndef MMU_CORE_RMAP_RMAP_TEST_UTIL_H_
#define MMU_CORE_RMAP_RMAP_TEST_UTIL_H_

#include <cstdint>
#include <set>
#include <vector>

#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/rmap.h"

namespace mmu::testing {

// The descriptors of an rmap, head first; empty if it has none.
inline std::vector<const PteListDesc*> DescsOf(const RmapHead& rmap) {
  std::vector<const PteListDesc*> descs;
  const uintptr_t word = rmap.WordForTest();
  if ((word & 1) == 0) return descs;
  auto* desc = reinterpret_cast<const PteListDesc*>(word & ~uintptr_t{3});
  for (; desc != nullptr; desc = desc->next) descs.push_back(desc);
  return descs;
}

// The `count` of each descriptor, in the same order.
inline std::vector<uint32_t> CountsOf(const RmapHead& rmap) {
  std::vector<uint32_t> counts;
  for (const PteListDesc* desc : DescsOf(rmap)) counts.push_back(desc->count);
  return counts;
}

inline std::multiset<const SpteSlot*> ContentsOf(const RmapHead& rmap) {
  std::multiset<const SpteSlot*> contents;
  const uintptr_t word = rmap.WordForTest() & ~uintptr_t{2};
  if (word != 0 && (word & 1) == 0) {
    contents.insert(reinterpret_cast<const SpteSlot*>(word));
  }
  for (const PteListDesc* desc : DescsOf(rmap)) {
    contents.insert(desc->sptes.begin(), desc->sptes.begin() + desc->count);
  }
  return contents;
}

}  // namespace mmu::testing

#endif  // MMU_CORE_RMAP_RMAP_TEST_UTIL_H_
