// A VM on stage-2 tables with granules of 4 KiB, for measurements, and direct
// access to its tables for the limits (see guest_tables.h).

#ifndef BENCH_STAGE2_TABLES_H_
#define BENCH_STAGE2_TABLES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/vm/vm.h"

namespace mmu::bench {

// Externally synchronised.
class Stage2Tables {
 public:
  // Slot 0 at gpa 0. FEAT_TLBIRANGE, and chunks of 1 GiB.
  Stage2Tables(uint64_t bytes, Level host_page_level,
               BbmLevel bbm = BbmLevel::k0);

  Vm& vm() { return *vm_; }
  Stage2State<Arm4K>& state();

  // Handles a fault on each of `pages` pages from `first` on.
  void FaultRange(uint64_t first, uint64_t pages, AccessKind kind);
  void Unmap(uint64_t first, uint64_t pages);
  // Splits all blocks of [0, pages) with tables from `cache`.
  void Split(uint64_t pages, S2Cache<Arm4K>& cache);
  // Maps [0, pages) with blocks and splits them into writable pages. REQUIRES:
  // the slot has 1G host pages, and `pages` is a number of whole GiBs.
  void MapSmall(uint64_t pages);

  // The slot for `gfn` in the table of level 1 that covers it, found by the
  // hardware's walk without any further work. REQUIRES: that table exists.
  S2Slot& WalkTo(Gfn gfn) {
    const S2Shape& shape = state_->options.shape;
    Level level = shape.start_level;
    S2Table<Arm4K>* table =
        state_->root->tables() +
        (gfn.value() >> PagesShift<Arm4K>(level) >> Arm4K::kEntryBits);
    for (; level != Level{1}; level = ChildOf(level)) {
      table = S2Paging<Arm4K>::TableOf(
          table->entries[IndexOf<Arm4K>(gfn, level)].Load());
    }
    return table->entries[IndexOf<Arm4K>(gfn, Level{1})];
  }

  // The tables of level 1 of [0, pages), in order. REQUIRES: they exist.
  std::vector<S2Table<Arm4K>*> SmallTables(uint64_t pages);

 private:
  std::unique_ptr<Vm> vm_;
  Stage2State<Arm4K>* state_;
  S2Cache<Arm4K> cache_;
};

// The number of entries of `tables` for which `is` holds.
template <typename Is>
uint64_t CountS2(const std::vector<S2Table<Arm4K>*>& tables, Is is) {
  uint64_t count = 0;
  for (const S2Table<Arm4K>* table : tables) {
    for (const S2Slot& slot : table->entries) count += is(slot.Load());
  }
  return count;
}

}  // namespace mmu::bench

#endif  // BENCH_STAGE2_TABLES_H_
