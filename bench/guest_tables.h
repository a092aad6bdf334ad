// A VM to measure on, and direct access to its tables for the limits.
//
// A limit does the least that the operation could do to the same entries: so
// it reaches them past the MMU. That is only allowed while nothing else uses
// the VM, and whoever changes entries so must leave them as they were, or the
// MMU's counters no longer agree with its tables.

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

// A VM with one slot, slot 0 at gpa 0, whose vCPUs have read page 0 and so have
// their root.
std::unique_ptr<Vm> MakeVm(uint64_t bytes, Level host_page_level,
                           BackingKind backing = BackingKind::kMetadataOnly,
                           int vcpu_count = 1);

// Faults on `pages` pages from `first` on, each exactly once, straight into the
// fault handler. `present`: the entry is there and forbids the access.
void FaultRange(Vm& vm, uint64_t first, uint64_t pages, AccessKind kind,
                bool present, int vcpu = 0);

// Maps [0, pages) with writable 4K leafs: huge ones, split. REQUIRES: a slot of
// 1G host pages, whole GiBs.
void MapSmall(Vm& vm, uint64_t pages);

// The root that the vCPUs run on. Null if there is none.
const TdpRoot* RootOf(const Vm& vm);

// The slot for `gfn` in the 4K table that covers it, by the same walk that
// hardware does, with nothing beside it. REQUIRES: that table exists.
inline SpteSlot& WalkTo(PageTable* table, Level level, Gfn gfn) {
  while (level != Level::k4K) {
    const Spte spte = table->entries[IndexOf(gfn, level)].Load();
    table = reinterpret_cast<PageTable*>(spte.address());
    level = ChildOf(level);
  }
  return table->entries[IndexOf(gfn, Level::k4K)];
}

// The 4K tables of [0, pages), in order. REQUIRES: they exist.
std::vector<PageTable*> SmallTables(const Vm& vm, uint64_t pages);

// Entries of `tables` for which `is` holds.
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
