// Measures the memory that a guest needs if it is mapped with 4K pages and
// logs.

#include <memory>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::StartLog;

// Value: the bytes of all tables taken from the pool, including the reserve,
// with their descriptors; of the open and the sealed bitmap with their scratch
// halves; and of the counters of huge pages. Limit: the bytes of the tables
// that the mappings need. Nothing is timed.
Measured Memory(const Effort& effort) {
  const uint64_t gib = effort.Scale(16);
  const uint64_t pages = gib * PagesPer(Level::k1G);
  RcuBarrier();
  const uint64_t before = TablePool::Process().tables_out();
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k1G);
  MapSmall(*vm, pages);
  BENCH_CHECK(StartLog(*vm, {}, nullptr).ok());
  VmState& state = vm->state();
  const uint64_t tables = state.pool.tables_out() - before;
  BENCH_CHECK(tables >= gib * 513);
  BENCH_CHECK(state.counters.Leafs(Level::k4K) == pages);

  MutexLock lock(state.slots.slots_lock);
  const Memslot& slot = *state.slots.Active(0).FindById(0);
  uint64_t bytes = tables * (kPageSize + sizeof(ShadowPage));
  bytes += 2 * slot.dirty_bitmap->allocated_bytes();
  for (const Level level : {Level::k2M, Level::k1G}) {
    bytes += slot.lpage_info->block_count(level) * sizeof(uint32_t);
  }
  return {.unit = "bytes/GiB",
          .value = static_cast<double>(bytes) / static_cast<double>(gib),
          .limit = 513.0 * kPageSize};
}

}  // namespace

std::vector<Benchmark> MemoryRows() {
  return {{"memory", 1.1, Goal::kAtMost, Memory}};
}

}  // namespace mmu::bench
