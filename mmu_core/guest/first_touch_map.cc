#include "mmu_core/guest/first_touch_map.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "mmu_core/base/check.h"

namespace mmu {

FirstTouchMap::FirstTouchMap(GpaSpace share, PagePlacement placement,
                             uint64_t seed)
    : share_(std::move(share)),
      placement_(placement),
      order_(share_.pages(), seed) {
  MMU_CHECK(share_.pages() > 0);
}

std::optional<Gfn> FirstTouchMap::Map(uint64_t program_page) {
  const auto known = gfn_of_page_.find(program_page);
  if (known != gfn_of_page_.end()) return known->second;
  if (process_pages() == share_.pages()) return std::nullopt;
  const uint64_t index = taken_ % share_.pages();
  ++taken_;
  const Gfn gfn = share_.PageAt(
      placement_ == PagePlacement::kScattered ? order_.At(index) : index);
  gfn_of_page_.emplace(program_page, gfn);
  return gfn;
}

void FirstTouchMap::StartNewProcess() { gfn_of_page_.clear(); }

}  // namespace mmu
