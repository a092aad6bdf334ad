// Measures the cost of page faults that map a page or make it writable again.

#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/testing/dirty_log.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::StartLog;

void ZapAll(VmState& vm, uint64_t pages) {
  MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap);
  vm.tdp.ZapLeafs(lock, 0, {Gfn(0), Gfn(pages)}, RootFilter::kValid,
                  FlushReason::kZap, nullptr);
  BENCH_CHECK(vm.counters.Leafs(Level::k4K) == 0);
}

// Value: faults on each page of a range whose tables exist. Limit: walks to
// each entry and exchanges it.
Measured FaultMap4K(const Effort& effort) {
  const uint64_t pages = effort.Scale(65536);
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k4K);
  VmState& state = vm->state();
  ZapAll(state, pages);
  FaultRange(*vm, 0, pages, AccessKind::kWrite, /*present=*/false);
  const TdpRoot& root = *RootOf(*vm);
  const Spte leaf = WalkTo(root.table(), root.level(), Gfn(0)).Load();
  const std::vector<PageTable*> tables = SmallTables(*vm, pages);

  const auto fault = [&] {
    ZapAll(state, pages);
    const double nanos = Nanos([&] {
      FaultRange(*vm, 0, pages, AccessKind::kWrite, /*present=*/false);
    });
    BENCH_CHECK(state.counters.Leafs(Level::k4K) == pages);
    return nanos / pages;
  };
  const auto exchange = [&] {
    ZapAll(state, pages);
    uint64_t won = 0;
    const double nanos = Nanos([&] {
      for (uint64_t i = 0; i < pages; ++i) {
        Spte expected = Spte::Initial();
        SpteSlot& slot = WalkTo(root.table(), root.level(), Gfn(i));
        won += slot.CompareExchange(expected,
                                    Spte(leaf.bits() + (i << kPageShift)));
      }
      benchmark::DoNotOptimize(won);
    });
    BENCH_CHECK(won == pages);
    for (PageTable* table : tables) {
      for (SpteSlot& slot : table->entries) slot.Store(Spte::Initial());
    }
    return nanos / pages;
  };
  const Pair pair = Alternate(effort, fault, exchange);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

// Value: a write to each page of a logged slot that is write-protected. Limit:
// walks to each entry, exchanges it and sets a bit.
Measured FaultFast(const Effort& effort) {
  const uint64_t pages = effort.Scale(65536);
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k4K);
  VmState& state = vm->state();
  ZapAll(state, pages);
  FaultRange(*vm, 0, pages, AccessKind::kWrite, /*present=*/false);
  BENCH_CHECK(StartLog(*vm, {}, nullptr).ok());
  DirtyBitmap* bitmap = nullptr;
  {
    MutexLock lock(state.slots.slots_lock);
    bitmap = state.slots.Active(0).FindById(0)->dirty_bitmap.get();
  }
  const TdpRoot& root = *RootOf(*vm);
  const auto protect = [&] {
    MmuReadLocked lock(state.mmu_lock, LockOp::kEnable);
    state.tdp.WriteProtect(lock, 0, {Gfn(0), Gfn(pages)}, Level::k4K, nullptr);
    bitmap->TakeAll(0, bitmap->word_count(), [](uint64_t, uint64_t) {});
  };

  const auto fault = [&] {
    protect();
    const uint64_t fast_before = state.vcpus[0]->stats().Snapshot().pf_fast;
    const double nanos = Nanos([&] {
      FaultRange(*vm, 0, pages, AccessKind::kWrite, /*present=*/true);
    });
    BENCH_CHECK(bitmap->CountDirty() == pages);
    BENCH_CHECK(state.vcpus[0]->stats().Snapshot().pf_fast - fast_before ==
                pages);
    return nanos / pages;
  };
  std::vector<std::atomic<uint64_t>> bits(pages / 64);
  const auto exchange = [&] {
    protect();
    for (auto& word : bits) word.store(0, std::memory_order_relaxed);
    uint64_t won = 0;
    const double nanos = Nanos([&] {
      for (uint64_t i = 0; i < pages; ++i) {
        SpteSlot& slot = WalkTo(root.table(), root.level(), Gfn(i));
        Spte spte = slot.Load();
        won +=
            slot.CompareExchange(spte, Spte(spte.bits() | spte_bits::kWrite));
        bits[i / 64].fetch_or(uint64_t{1} << (i % 64));
      }
      benchmark::DoNotOptimize(won);
    });
    uint64_t set = 0;
    for (auto& word : bits) set += std::popcount(word.load());
    BENCH_CHECK(won == pages && set == pages);
    return nanos / pages;
  };
  const Pair pair = Alternate(effort, fault, exchange);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> FaultRows() {
  return {{"fault_map_4k", 3, Goal::kAtMost, FaultMap4K},
          {"fault_fast", 2, Goal::kAtMost, FaultFast}};
}

}  // namespace mmu::bench
