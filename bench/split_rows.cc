// Measures the cost of splitting a 1 GiB page into 4 KiB pages.

#include <atomic>
#include <memory>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/table_limits.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/sync/rcu.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kPages = PagesPer(Level::k1G);
constexpr int kTables = 513;

// Value: splits with 513 free tables in the cache. Limit: fills 513 tables with
// stores. Both use the same tables, which return to the pool in between.
Measured Split1G(const Effort& effort) {
  const std::unique_ptr<Vm> vm = MakeVm(kPages << kPageShift, Level::k1G);
  VmState& state = vm->state();
  BENCH_CHECK(state.counters.Leafs(Level::k1G) == 1);
  TableCache cache(state.pool);

  const auto split = [&] {
    BENCH_CHECK(cache.TopUp(kTables, kTables).ok());
    SplitOutcome outcome;
    const double nanos = Nanos([&] {
      MmuReadLocked lock(state.mmu_lock, LockOp::kSplit);
      outcome = state.tdp.Split(lock, 0, {Gfn(0), Gfn(kPages)}, Level::k4K,
                                SplitTrigger::kRequest, cache, 0, nullptr);
    });
    BENCH_CHECK(outcome.split_1g_count == 1 && outcome.split_2m_count == 512);
    BENCH_CHECK(state.counters.Leafs(Level::k4K) == kPages);
    {
      MutexLock slots(state.slots.slots_lock);
      MmuReadLocked lock(state.mmu_lock, LockOp::kRecover);
      const Memslot& slot = *state.slots.Active(0).FindById(0);
      state.tdp.Recover(lock, slot, slot.range(), nullptr);
    }
    BENCH_CHECK(state.counters.Leafs(Level::k1G) == 1);
    RcuBarrier();
    return nanos / 1e6;
  };
  const auto fill = [&] {
    return FillTables(cache, kTables, 0x10'0000'0877) / 1e6;
  };
  const Pair pair = Alternate(effort, split, fill);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> SplitRows() {
  return {{"split_1g", 2, Goal::kAtMost, Split1G}};
}

}  // namespace mmu::bench
