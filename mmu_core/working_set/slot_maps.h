// The memslots of a VM with their maps of generations.

#ifndef MMU_CORE_WORKING_SET_SLOT_MAPS_H_
#define MMU_CORE_WORKING_SET_SLOT_MAPS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/working_set/generation_map.h"

namespace mmu {

// A memslot whose pages are tracked. A value.
struct TrackedSlot {
  uint32_t id = 0;
  // Tells apart slots that have the same id one after the other. It stays when
  // a slot moves.
  uint64_t uid = 0;
  GfnRange range;  // not empty, less than 2^31 pages

  friend bool operator==(const TrackedSlot&, const TrackedSlot&) = default;
};

struct SlotMap {
  TrackedSlot slot;
  std::shared_ptr<GenerationMap> map;  // its page 0 is slot.range.start
  // The first one that could be recorded since the slot is where it is.
  uint64_t first_generation = 0;
};

// Ascending by gfn; the ranges do not overlap.
using SlotMaps = std::vector<SlotMap>;

// The maps of `slots`, whose ids are unique and whose ranges do not overlap. A
// slot that has a map in `before`, with the same id, uid and number of pages,
// keeps it, also if the slot has moved. Each other slot gets a new map, in
// which no page was found young. `next_generation` is the first to be recorded
// of slots that are new or have moved. Nothing if the host has no memory.
absl::optional<SlotMaps> MapsOfSlots(const SlotMaps& before,
                                     absl::Span<const TrackedSlot> slots,
                                     uint64_t next_generation);

// Calls `fn` for each slot that overlaps `range`, in ascending order, with the
// part of `range` that lies in the slot.
void ForEachSlotIn(
    const SlotMaps& slots, GfnRange range,
    absl::FunctionRef<void(const SlotMap& slot, GfnRange part)> fn);

// What a reader needs to tell the ages of pages: the newest generation, 0
// before the first one, and the maps. A value. It stays usable while slots come
// and go and generations begin; to be used for less than 64 generations
// (working_set/generation_age.h).
struct GenerationView {
  uint64_t newest = 0;
  std::shared_ptr<const SlotMaps> slots;
};

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_SLOT_MAPS_H_
