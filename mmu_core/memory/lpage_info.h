// The huge pages that a memslot may be mapped with (SLOT-40..45).
//
// For level 2 (2 MiB) and level 3 (1 GiB) there is one counter for each block
// of that size that the slot touches. A block may be mapped by one huge page
// only while its counter is 0. Counters start at 1 where a huge page would
// reach beyond the slot or where guest and host frames are not congruent. Each
// further reason to map a gfn small adds one to the counter.

#ifndef MMU_CORE_MEMORY_LPAGE_INFO_H_
#define MMU_CORE_MEMORY_LPAGE_INFO_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"

namespace mmu {

// Thread-safe. Counters are relaxed atomics: a thread that changes one and
// relies on its order holds mmu_lock.
class LpageInfo {
 public:
  // REQUIRES: npages > 0, hva page aligned.
  LpageInfo(Gfn base, uint64_t npages, Hva hva);

  // All of these functions CHECK that `gfn` lies in the slot (SLOT-45). `level`
  // is k2M or k1G.
  bool Disallowed(Gfn gfn, Level level) const { return Count(gfn, level) != 0; }
  uint32_t Count(Gfn gfn, Level level) const;
  // The number of Disallow calls for the block that Allow has not undone.
  uint32_t Disallows(Gfn gfn, Level level) const;

  // Adds one to the counter of `gfn`'s block at both levels (SLOT-43).
  void Disallow(Gfn gfn);
  // Undoes one Disallow. REQUIRES: an earlier Disallow of the same block.
  void Allow(Gfn gfn);

  // Number of blocks of `level` that the slot touches (SLOT-40).
  uint64_t block_count(Level level) const;

 private:
  struct Counters {
    uint64_t size = 0;
    bool congruent = true;  // of guest and host frames
    std::unique_ptr<std::atomic<uint32_t>[]> counts;
  };

  std::atomic<uint32_t>& CounterOf(Gfn gfn, Level level) const;
  static size_t SlotOf(Level level);

  const GfnRange range_;
  Counters
      levels_[2];  // 2 MiB, 1 GiB; the arrays are immutable, not the counts
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_LPAGE_INFO_H_
