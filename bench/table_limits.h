// Limits that are the same for each format of tables.

#ifndef BENCH_TABLE_LIMITS_H_
#define BENCH_TABLE_LIMITS_H_

#include <cstdint>
#include <vector>

#include "bench/harness.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/address.h"
#include "mmu_core/paging/table_cache.h"

namespace mmu::bench {

// Fills `count` tables of the cache with plain stores: successive pages from
// `entry` on. Returns the nanoseconds of the stores. The tables go back to the
// pool.
template <typename Page>
double FillTables(BasicTableCache<Page>& cache, int count, uint64_t entry) {
  BENCH_CHECK(cache.TopUp(count, count).ok());
  std::vector<Page*> pages;
  while (cache.count() > 0) pages.push_back(cache.Take());
  const double nanos = Nanos([&] {
    for (Page* page : pages) {
      auto* entries = reinterpret_cast<uint64_t*>(page->table->entries.data());
      const uint64_t size = page->table->entries.size();
      for (uint64_t i = 0; i < size; ++i) entries[i] = entry + i * kPageSize;
      entry += size * kPageSize;
      benchmark::DoNotOptimize(entries);
      benchmark::ClobberMemory();
    }
  });
  BENCH_CHECK(pages.size() == static_cast<size_t>(count));
  for (Page* page : pages) {
    BENCH_CHECK(page->table->entries[1].Load().bits() != 0);
    cache.Put(page);
  }
  cache.Clear();
  return nanos;
}

// Clears `bits` in each entry by an atomic AND. Returns its nanoseconds.
template <typename Table>
double ClearInAll(const std::vector<Table*>& tables, uint64_t bits) {
  return Nanos([&] {
    for (Table* table : tables) {
      for (auto& slot : table->entries) {
        benchmark::DoNotOptimize(slot.FetchAnd(~bits));
      }
    }
  });
}

// Reads each entry, and clears `bits` by an atomic AND where one of them is
// set; requires that there are `expected` such entries. Returns its
// nanoseconds.
template <typename Table>
double ClearWhereSet(const std::vector<Table*>& tables, uint64_t bits,
                     uint64_t expected) {
  uint64_t found = 0;
  const double nanos = Nanos([&] {
    for (Table* table : tables) {
      for (auto& slot : table->entries) {
        if ((slot.Load().bits() & bits) == 0) continue;
        slot.FetchAnd(~bits);
        ++found;
      }
    }
    benchmark::DoNotOptimize(found);
  });
  BENCH_CHECK(found == expected);
  return nanos;
}

}  // namespace mmu::bench

#endif  // BENCH_TABLE_LIMITS_H_
