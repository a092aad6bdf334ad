// Lists guest memory by heat: the memory that was found young last is the
// hottest.
//
// A unit is a 4 KiB page or a larger aligned block of pages; at the edge of a
// slot, the part of the block that lies in the slot. Its age is that of its
// youngest page. Adjoining units of one slot that have the same age form an
// extent.
//
// A long list is read in pieces: each piece ends with the position at which the
// next one begins. Other threads may begin generations and record young pages
// between two pieces and during each. A unit whose youngest page changed its
// generation between two pieces may be missing in all pieces, or be in two; all
// other units are in one. When units pass kMaxGenerationAge, they may be in two
// pieces, too.

#ifndef MMU_CORE_WORKING_SET_HOT_RANGES_H_
#define MMU_CORE_WORKING_SET_HOT_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/slot_maps.h"

namespace mmu {

// Memory that was never found young is the coldest. Extents of one age are in
// the order of their gfns.
enum class HeatOrder : uint8_t { kHottestFirst, kColdestFirst };

enum class NeverYoungMemory : uint8_t { kInclude, kExclude };

// A place in a list: the units of generation `sequence` (0: never found young)
// from `gfn` on, and then the units that follow in the order. A value.
struct HeatPosition {
  uint64_t sequence = 0;
  Gfn gfn;

  friend bool operator==(const HeatPosition&, const HeatPosition&) = default;
};

// A value.
struct HeatExtent {
  uint32_t slot = 0;  // its id
  GfnRange range;
  GenerationAge age = kNeverYoung;
  // The generation that found the units young last; 0 if none did. With age
  // kMaxGenerationAge: that generation or an older one.
  uint64_t sequence = 0;

  friend bool operator==(const HeatExtent&, const HeatExtent&) = default;
};

struct HeatQuery {
  HeatOrder order = HeatOrder::kHottestFirst;
  Level unit = Level::k4K;  // a level of x86, at most kMaxLeafLevel
  NeverYoungMemory never_young = NeverYoungMemory::kInclude;
  size_t limit = 1;  // the greatest number of extents to return, at least 1
  absl::optional<HeatPosition> from;  // the beginning of the list if not set
};

struct HeatList {
  std::vector<HeatExtent> extents;
  absl::optional<HeatPosition> next;  // not set at the end of the list
};

// One pass over the bytes of all pages, and memory for 2 * query.limit extents.
HeatList ListHotRanges(const GenerationView& view, const HeatQuery& query);

// For each aligned block of `block` that overlaps `range`, in ascending order,
// the age of the youngest of its pages that are in `range`. Pages outside of
// the slots were never found young.
std::vector<GenerationAge> HeatOfBlocks(const GenerationView& view,
                                        GfnRange range, Level block);

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_HOT_RANGES_H_
