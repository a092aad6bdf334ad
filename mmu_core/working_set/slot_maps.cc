#include "mmu_core/working_set/slot_maps.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/working_set/generation_map.h"

namespace mmu {
namespace {

// Null if `slot` has no map in `before`.
const SlotMap* FindMap(const SlotMaps& before, const TrackedSlot& slot) {
  for (const SlotMap& old : before) {
    if (old.slot.id == slot.id && old.slot.uid == slot.uid &&
        old.slot.range.pages() == slot.range.pages()) {
      return &old;
    }
  }
  return nullptr;
}

}  // namespace

absl::optional<SlotMaps> MapsOfSlots(const SlotMaps& before,
                                     absl::Span<const TrackedSlot> slots,
                                     uint64_t next_generation) {
  SlotMaps maps;
  maps.reserve(slots.size());
  for (const TrackedSlot& slot : slots) {
    MMU_CHECK(!slot.range.empty());
    if (const SlotMap* old = FindMap(before, slot); old != nullptr) {
      maps.push_back(
          {slot, old->map,
           slot == old->slot ? old->first_generation : next_generation});
      continue;
    }
    std::shared_ptr<GenerationMap> map =
        GenerationMap::TryCreate(slot.range.pages());
    if (map == nullptr) return absl::nullopt;
    maps.push_back({slot, std::move(map), next_generation});
  }
  std::sort(maps.begin(), maps.end(), [](const SlotMap& a, const SlotMap& b) {
    return a.slot.range.start < b.slot.range.start;
  });
  for (size_t i = 1; i < maps.size(); ++i) {
    MMU_CHECK(maps[i - 1].slot.range.end <= maps[i].slot.range.start);
  }
  return maps;
}

void ForEachSlotIn(
    const SlotMaps& slots, GfnRange range,
    absl::FunctionRef<void(const SlotMap& slot, GfnRange part)> fn) {
  if (range.empty()) return;
  const auto ends_before = [](const SlotMap& slot, Gfn gfn) {
    return slot.slot.range.end <= gfn;
  };
  for (auto it = std::lower_bound(slots.begin(), slots.end(), range.start,
                                  ends_before);
       it != slots.end() && it->slot.range.start < range.end; ++it) {
    fn(*it, it->slot.range.Intersect(range));
  }
}

}  // namespace mmu
