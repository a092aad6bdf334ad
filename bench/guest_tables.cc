#include "bench/guest_tables.h"

#include <utility>

#include "bench/harness.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/vcpu/fault_handler.h"

namespace mmu::bench {

std::unique_ptr<Vm> MakeVm(uint64_t bytes, Level host_page_level,
                           BackingKind backing, int vcpu_count) {
  VmConfig config;
  config.vcpu_count = vcpu_count;
  MemslotConfig slot;
  slot.size_bytes = bytes;
  slot.backing = backing;
  slot.host_page_level = host_page_level;
  config.memslots = {slot};
  absl::StatusOr<std::unique_ptr<Vm>> vm = Vm::Create(config);
  BENCH_CHECK(vm.ok());
  for (const auto& vcpu : (*vm)->state().vcpus) {
    uint64_t word = 0;
    BENCH_CHECK(vcpu->Access(Gpa(0), AccessKind::kRead, &word) ==
                AccessOutcome::kDone);
  }
  return *std::move(vm);
}

void FaultRange(Vm& vm, uint64_t first, uint64_t pages, AccessKind kind,
                bool present, int vcpu) {
  VmState& state = vm.state();
  for (uint64_t i = 0; i < pages; ++i) {
    const absl::StatusOr<FaultResult> result =
        HandleFault(state, *state.vcpus[vcpu], Gfn(first + i), kind, present);
    BENCH_CHECK(result.ok() && *result == FaultResult::kFixed);
  }
}

void MapSmall(Vm& vm, uint64_t pages) {
  VmState& state = vm.state();
  for (uint64_t gfn = 0; gfn < pages; gfn += PagesPer(Level::k1G)) {
    uint64_t word = 0;
    BENCH_CHECK(state.vcpus[0]->Access(ToGpa(Gfn(gfn)), AccessKind::kWrite,
                                       &word) == AccessOutcome::kDone);
  }
  MutexLock slots(state.slots.slots_lock);
  MmuReadLocked lock(state.mmu_lock, LockOp::kSplit);
  state.tdp.Split(lock, 0, {Gfn(0), Gfn(pages)}, Level::k4K,
                  SplitTrigger::kRequest, state.operation_tables, 0, nullptr);
  BENCH_CHECK(state.counters.Leafs(Level::k4K) >= pages);
}

const TdpRoot* RootOf(const Vm& vm) { return vm.state().vcpus[0]->root(); }

std::vector<PageTable*> SmallTables(const Vm& vm, uint64_t pages) {
  const TdpRoot& root = *RootOf(vm);
  std::vector<PageTable*> tables;
  for (uint64_t gfn = 0; gfn < pages; gfn += kEntriesPerTable) {
    SpteSlot& first = WalkTo(root.table(), root.level(), Gfn(gfn));
    tables.push_back(reinterpret_cast<PageTable*>(&first));
  }
  return tables;
}

}  // namespace mmu::bench
