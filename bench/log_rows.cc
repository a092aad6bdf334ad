// Measures the cost of enabling dirty logging and of clearing the log.

#include <memory>
#include <random>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/table_limits.h"
#include "benchmark/benchmark.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/testing/dirty_log.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::ClearLog;
using ::mmu::testing::SealLog;
using ::mmu::testing::StartLog;

constexpr uint64_t kPages = PagesPer(Level::k1G);

bool IsWritable(Spte spte) { return spte.IsWritable(); }

void MakeWritable(const std::vector<PageTable*>& tables,
                  const SpteFormat& format) {
  for (PageTable* table : tables) {
    for (SpteSlot& slot : table->entries) {
      slot.Store(format.WithWrite(slot.Load()));
    }
  }
}

// Value: write-protects a GiB of 4K pages. Limit: one atomic AND per entry.
Measured EnableWp(const Effort& effort) {
  const std::unique_ptr<Vm> vm = MakeVm(kPages << kPageShift, Level::k1G);
  MapSmall(*vm, kPages);
  VmState& state = vm->state();
  const std::vector<PageTable*> tables = SmallTables(*vm, kPages);

  const auto protect = [&] {
    MakeWritable(tables, state.tdp.format());
    const double nanos = Nanos([&] {
      MmuReadLocked lock(state.mmu_lock, LockOp::kEnable);
      BENCH_CHECK(state.tdp.WriteProtect(lock, 0, {Gfn(0), Gfn(kPages)},
                                         Level::k4K, nullptr));
    });
    BENCH_CHECK(CountSptes(tables, IsWritable) == 0);
    return nanos / 1e6;
  };
  const auto locked_and = [&] {
    MakeWritable(tables, state.tdp.format());
    const double nanos = ClearInAll(tables, spte_bits::kWrite);
    BENCH_CHECK(CountSptes(tables, IsWritable) == 0);
    return nanos / 1e6;
  };
  const Pair pair = Alternate(effort, protect, locked_and);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

// Value: clears the sealed dirty pages of a GiB, about one page in `one_in`.
// Limit: walks to each of their entries and makes an atomic AND there.
Measured ClearDirty(const Effort& effort, uint64_t one_in) {
  const std::unique_ptr<Vm> vm = MakeVm(kPages << kPageShift, Level::k1G);
  MapSmall(*vm, kPages);
  VmState& state = vm->state();
  BENCH_CHECK(StartLog(*vm, {}, nullptr).ok());
  const std::vector<PageTable*> tables = SmallTables(*vm, kPages);
  BENCH_CHECK(CountSptes(tables, IsWritable) == 0);
  const TdpRoot& root = *RootOf(*vm);

  std::mt19937_64 random(1);
  std::vector<uint64_t> dirty;
  std::vector<uint64_t> mask(kPages / 64);
  for (uint64_t page = 0; page < kPages; ++page) {
    if (random() % one_in != 0) continue;
    dirty.push_back(page);
    mask[page / 64] |= uint64_t{1} << (page % 64);
  }

  const auto clear = [&] {
    for (const uint64_t page : dirty) {
      FaultRange(*vm, page, 1, AccessKind::kWrite, /*present=*/true);
    }
    const absl::StatusOr<testing::SealedSlot> seal = SealLog(*vm, 0, nullptr);
    BENCH_CHECK(seal.ok() && seal->dirty_page_count == dirty.size());
    BENCH_CHECK(CountSptes(tables, IsWritable) == dirty.size());
    uint64_t cleared = 0;
    const double nanos = Nanos([&] {
      cleared = ClearLog(*vm, 0, seal->epoch, 0, kPages, mask, nullptr)
                    ->cleared_page_count;
    });
    BENCH_CHECK(cleared == dirty.size());
    BENCH_CHECK(vm->AcknowledgePages(testing::TestCall(), seal->epoch).ok());
    BENCH_CHECK(CountSptes(tables, IsWritable) == 0);
    return nanos / dirty.size();
  };
  const auto walk_and = [&] {
    for (const uint64_t page : dirty) {
      SpteSlot& slot = WalkTo(root.table(), root.level(), Gfn(page));
      slot.Store(state.tdp.format().WithWrite(slot.Load()));
    }
    const double nanos = Nanos([&] {
      for (const uint64_t page : dirty) {
        SpteSlot& slot = WalkTo(root.table(), root.level(), Gfn(page));
        benchmark::DoNotOptimize(slot.FetchAnd(~spte_bits::kWrite));
      }
    });
    BENCH_CHECK(CountSptes(tables, IsWritable) == 0);
    return nanos / dirty.size();
  };
  const Pair pair = Alternate(effort, clear, walk_and);
  return {.unit = "ns/page", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> LogRows() {
  return {{"enable_wp", 1.5, Goal::kAtMost, EnableWp},
          {"clear_dirty", 2, Goal::kAtMost,
           [](const Effort& effort) { return ClearDirty(effort, 1); }},
          {"clear_dirty_1pct", 2, Goal::kAtMost,
           [](const Effort& effort) { return ClearDirty(effort, 100); }}};
}

}  // namespace mmu::bench
