#include "mmu_core/vm/jobs/cold_memory.h"

#include <algorithm>
#include <cstdint>

#include "absl/types/optional.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/jobs/generation_coverage.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {

ColdMemory::ColdMemory(const WorkingSet& working_set,
                       const GenerationView& view, int64_t since_nanos)
    : view_(view) {
  uint64_t newest_whole = 0;
  const uint64_t remembered = std::min(view.newest, kKeptGenerations);
  for (uint64_t age = 0; age < remembered; ++age) {
    const absl::optional<Generation> generation =
        working_set.FindGeneration(view.newest - age);
    if (!generation.has_value()) break;  // newer ones took its place meanwhile
    const bool ended = generation->ended_at_nanos.has_value();
    const auto coverage =
        GenerationCoverage::FromFlags(generation->totals.coverage);
    if (coverage.hides_accesses() &&
        *generation->ended_at_nanos > since_nanos) {
      newest_first_generation_ = 0;
      return;
    }
    // A page was accessed before the end of the generation that found it young.
    if (newest_whole != 0 && first_cold_age_ == kNeverYoung && ended &&
        *generation->ended_at_nanos <= since_nanos) {
      first_cold_age_ = static_cast<GenerationAge>(age);
    }
    if (newest_whole == 0 && ended && coverage.whole()) {
      newest_whole = generation->sequence;
    }
    if (newest_whole != 0 && newest_first_generation_ == 0 &&
        generation->began_at_nanos <= since_nanos) {
      newest_first_generation_ = generation->sequence;
    }
  }
}

bool ColdMemory::Contains(GfnRange block, GenerationAge age) const {
  if (age < first_cold_age_) return false;
  uint64_t known_pages = 0;
  ForEachSlotIn(*view_.slots, block, [&](const SlotMap& slot, GfnRange part) {
    if (slot.first_generation <= newest_first_generation_) {
      known_pages += part.pages();
    }
  });
  return known_pages == block.pages();
}

}  // namespace mmu
