// A VM for measurements, and direct access to its tables for the limits.
//
// A limit does the least work that the operation could do on the same entries,
// so it bypasses the MMU. This is only allowed while nothing else uses the VM.
// Changed entries must be restored, otherwise the MMU's counters no longer
// agree with its tables.

#ifndef BENCH_GUEST_TABLES_H_
#define BENCH_GUEST_TABLES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {

// A VM with one slot, slot 0 at gpa 0. Its vCPUs have read page 0, so each has
// its root.
std::unique_ptr<Vm> MakeVm(uint64_t bytes, Level host_page_level,
                           BackingKind backing = BackingKind::kMetadataOnly,
                           int vcpu_count = 1);

// Calls the fault handler for `pages` pages from `first` on, once for each. If
// `present`, the fault says that the entry is present and forbids the access.
void FaultRange(Vm& vm, uint64_t first, uint64_t pages, AccessKind kind,
                bool present, int vcpu = 0);

// Maps [0, pages) with huge leafs and splits them into writable 4K leafs.
// REQUIRES: the slot has 1G host pages, and `pages` is a number of whole GiBs.
void MapSmall(Vm& vm, uint64_t pages);

// The root of the vCPUs. Null if there is none.
const TdpRoot* RootOf(const Vm& vm);

// The slot for `gfn` in the 4K table that covers it, found by the hardware's
// walk without any further work. REQUIRES: that table exists.
inline SpteSlot& WalkTo(PageTable* table, Level level, Gfn gfn) {
  while (level != Level::k4K) {
    const Spte spte = table->entries[IndexOf(gfn, level)].Load();
    table = reinterpret_cast<PageTable*>(spte.address());
    level = ChildOf(level);
  }
  return table->entries[IndexOf(gfn, Level::k4K)];
}

// The 4K tables of [0, pages), in order. REQUIRES: the tables exist.
std::vector<PageTable*> SmallTables(const Vm& vm, uint64_t pages);

// The number of entries of `tables` for which `is` holds.
template <typename Is>
uint64_t CountSptes(const std::vector<PageTable*>& tables, Is is) {
  uint64_t count = 0;
  for (const PageTable* table : tables) {
    for (const SpteSlot& slot : table->entries) count += is(slot.Load());
  }
  return count;
}

}  // namespace mmu::bench

#endif  // BENCH_GUEST_TABLES_H_
