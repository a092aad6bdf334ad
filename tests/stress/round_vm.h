// The VM of a round of stress.

#ifndef TESTS_STRESS_ROUND_VM_H_
#define TESTS_STRESS_ROUND_VM_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/core/vm_config.h"
#include "tests/stress/round_config.h"

namespace mmu::stress {

// Slot 4, which is stable, is the only one with room for a page of 1 GiB. Not
// every round has it (RoundConfig::has_huge_range).
inline constexpr GfnRange kHugeRange = GfnRange::Of(
    Gfn((uint64_t{8} << 30) / kPageSize), (uint64_t{1} << 30) / kPageSize);

inline constexpr uint32_t kHugeSlot = 4;

// The slot `id` of `pages` pages at `start`.
MemslotConfig SlotOf(const RoundConfig& round, uint32_t id, Gfn start,
                     uint64_t pages);
// The VM with its stable slots: 0, which is migrated, 1, and perhaps 4.
VmConfig VmOf(const RoundConfig& round);

}  // namespace mmu::stress

#endif  // TESTS_STRESS_ROUND_VM_H_
