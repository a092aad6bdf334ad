// Measures the cost of ageing pages.

#include <memory>
#include <random>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/table_limits.h"
#include "mmu_core/paging/spte_format.h"

namespace mmu::bench {
namespace {

// Value: tests and clears the Accessed bits of all 4K entries, of which one in
// a hundred is young. Limit: reads each entry and makes an atomic AND on the
// young ones.
Measured AgeScan(const Effort& effort) {
  const uint64_t pages = effort.Scale(64) * PagesPer(Level::k1G);
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k1G);
  MapSmall(*vm, pages);
  const SpteFormat& format = vm->state().tdp.format();
  const GfnRange all{Gfn(0), Gfn(pages)};
  BENCH_CHECK(vm->Age(all, AgeMode::kTestAndClear, nullptr).ok());

  const std::vector<PageTable*> tables = SmallTables(*vm, pages);
  std::mt19937_64 random(1);
  std::vector<SpteSlot*> young;
  for (PageTable* table : tables) {
    for (SpteSlot& slot : table->entries) {
      if (random() % 100 == 0) young.push_back(&slot);
    }
  }
  const auto rejuvenate = [&] {
    for (SpteSlot* slot : young) slot->Store(format.WithAccessed(slot->Load()));
  };
  const auto is_accessed = [&](Spte spte) { return format.IsAccessed(spte); };

  const auto age = [&] {
    rejuvenate();
    uint64_t found = 0;
    const double nanos = Nanos([&] {
      found = vm->Age(all, AgeMode::kTestAndClear, nullptr)->young_page_count;
    });
    BENCH_CHECK(found == young.size());
    BENCH_CHECK(CountSptes(tables, is_accessed) == 0);
    return nanos / 1e6;
  };
  const auto read_and = [&] {
    rejuvenate();
    return ClearWhereSet(tables, format.accessed_mask(), young.size()) / 1e6;
  };
  const Pair pair = Alternate(effort, age, read_and);
  return {.unit = "ms", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> AgeRows() {
  return {{"age_scan", 1.2, Goal::kAtMost, AgeScan}};
}

}  // namespace mmu::bench
