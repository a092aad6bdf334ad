#include "mmu_core/memory/lpage_info.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"

namespace mmu {

LpageInfo::LpageInfo(Gfn base, uint64_t npages, Hva hva)
    : range_(GfnRange::Of(base, npages)) {
  MMU_CHECK(npages > 0);
  for (Level level : {Level::k2M, Level::k1G}) {
    const int shift = PagesShift(level);
    Counters& counters = levels_[SlotOf(level)];
    counters.size =
        ((base.value() + npages - 1) >> shift) - (base.value() >> shift) + 1;
    counters.counts = std::make_unique<std::atomic<uint32_t>[]>(counters.size);
    // SLOT-41: blocks that reach beyond the slot.
    if (!IsAligned(range_.start, level)) counters.counts[0] = 1;
    if (!IsAligned(range_.end, level)) counters.counts[counters.size - 1] = 1;
    // SLOT-42: a huge page needs both addresses at the same offset in it.
    const uint64_t host_frame = hva.value() >> kPageShift;
    if (((base.value() ^ host_frame) & (PagesPer(level) - 1)) != 0) {
      counters.congruent = false;
      for (uint64_t i = 0; i < counters.size; ++i) counters.counts[i] = 1;
    }
  }
}

size_t LpageInfo::SlotOf(Level level) {
  MMU_CHECK(level == Level::k2M || level == Level::k1G);
  return level == Level::k2M ? 0 : 1;
}

std::atomic<uint32_t>& LpageInfo::CounterOf(Gfn gfn, Level level) const {
  MMU_CHECK(range_.Contains(gfn));
  const int shift = PagesShift(level);
  return levels_[SlotOf(level)]
      .counts[(gfn.value() >> shift) - (range_.start.value() >> shift)];
}

uint32_t LpageInfo::Count(Gfn gfn, Level level) const {
  return CounterOf(gfn, level).load(std::memory_order_relaxed);
}

uint32_t LpageInfo::Disallows(Gfn gfn, Level level) const {
  const GfnRange block = GfnRange::Of(RoundDown(gfn, level), PagesPer(level));
  const bool by_shape =
      !levels_[SlotOf(level)].congruent || !range_.Contains(block);
  return Count(gfn, level) - (by_shape ? 1 : 0);
}

void LpageInfo::Disallow(Gfn gfn) {
  for (Level level : {Level::k2M, Level::k1G}) {
    CounterOf(gfn, level).fetch_add(1, std::memory_order_relaxed);
  }
}

void LpageInfo::Allow(Gfn gfn) {
  for (Level level : {Level::k2M, Level::k1G}) {
    const uint32_t before =
        CounterOf(gfn, level).fetch_sub(1, std::memory_order_relaxed);
    MMU_CHECK(before > 0);
  }
}

uint64_t LpageInfo::block_count(Level level) const {
  return levels_[SlotOf(level)].size;
}

}  // namespace mmu
