#include "mmu_core/stage2/stage2_state.h"

#include <cstdint>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"

namespace mmu {

template <TableGeometry G>
Level MaxMappingLevelS2(const Memslot& slot, Gfn gfn, Level max) {
  if (slot.backing == nullptr) return Level{1};
  // The host's own page sizes, by the names that x86 has for them.
  const uint64_t host_bytes = BytesPer(slot.backing->host_page_level());
  const uint64_t hva_page = slot.HvaOf(gfn).value() >> kPageShift;
  for (Level level = max; ToInt(level) > 1; level = ChildOf(level)) {
    const uint64_t mask = PagesPer<G>(level) - 1;
    const GfnRange block =
        GfnRange::Of(RoundDown<G>(gfn, level), PagesPer<G>(level));
    if (BytesPer<G>(level) > host_bytes) continue;
    if ((hva_page & mask) != (gfn.value() & mask)) continue;
    if (!slot.range().Contains(block)) continue;
    // The host maps small where a part of the memory is missing or read-only.
    if (!slot.backing->all_writable() &&
        BytesPer(slot.backing->MappingLevel(slot.HvaOf(gfn),
                                            slot.backing->host_page_level())) <
            BytesPer<G>(level)) {
      continue;
    }
    return level;
  }
  return Level{1};
}

template Level MaxMappingLevelS2<Arm4K>(const Memslot&, Gfn, Level);
template Level MaxMappingLevelS2<Arm16K>(const Memslot&, Gfn, Level);
template Level MaxMappingLevelS2<Arm64K>(const Memslot&, Gfn, Level);

}  // namespace mmu
