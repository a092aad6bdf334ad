// Measures the stage-2 MMU.

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/stage2_tables.h"
#include "bench/table_limits.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stage2/stage2_log.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::ClearLog;
using ::mmu::testing::SealLog;
using ::mmu::testing::StartLog;

constexpr uint64_t kGiBPages = PagesPer<Arm4K>(Level{3});
constexpr uint64_t kPerTable = Arm4K::kEntriesPerTable;
// The tables for the pages of 1 GiB, below the one that has the block.
constexpr int kTablesPerGiB = 513;

using Tables = std::vector<S2Table<Arm4K>*>;

bool IsWritable(S2Descriptor descriptor) { return descriptor.IsWritable(); }

void MakeWritable(const Tables& tables) {
  for (S2Table<Arm4K>* table : tables) {
    for (S2Slot& slot : table->entries) {
      slot.Store(slot.Load().With(s2_bits::kWrite));
    }
  }
}

// Value: faults on each page of a range whose tables exist. Limit: walks to
// each entry and exchanges it. One page of each table stays mapped, since an
// empty table goes (ARM-02).
Measured FaultMap(const Effort& effort) {
  const uint64_t pages = effort.Scale(65536);
  const uint64_t measured = pages / kPerTable * (kPerTable - 1);
  Stage2Tables guest(pages << kPageShift, Level::k4K);
  guest.FaultRange(0, pages, AccessKind::kWrite);
  const S2Descriptor first = guest.WalkTo(Gfn(0)).Load();
  const auto for_each_run = [&](auto fn) {
    for (uint64_t at = 0; at < pages; at += kPerTable) fn(at + 1);
  };
  const auto unmap = [&] {
    for_each_run([&](uint64_t at) { guest.Unmap(at, kPerTable - 1); });
    BENCH_CHECK(guest.state().parts.counters.Leafs(Level{1}) ==
                pages - measured);
  };

  const auto fault = [&] {
    unmap();
    const double nanos = Nanos([&] {
      for_each_run([&](uint64_t at) {
        guest.FaultRange(at, kPerTable - 1, AccessKind::kWrite);
      });
    });
    BENCH_CHECK(guest.state().parts.counters.Leafs(Level{1}) == pages);
    return nanos / static_cast<double>(measured);
  };
  const auto exchange = [&] {
    unmap();
    uint64_t won = 0;
    const double nanos = Nanos([&] {
      for_each_run([&](uint64_t at) {
        for (uint64_t i = at; i < at + kPerTable - 1; ++i) {
          S2Descriptor expected;
          won += guest.WalkTo(Gfn(i)).CompareExchange(
              expected, S2Descriptor(first.bits() + (i << kPageShift)));
        }
      });
      benchmark::DoNotOptimize(won);
    });
    BENCH_CHECK(won == measured);
    for_each_run([&](uint64_t at) {
      for (uint64_t i = at; i < at + kPerTable - 1; ++i) {
        guest.WalkTo(Gfn(i)).Store(S2Descriptor());
      }
    });
    // As the counters say.
    for_each_run([&](uint64_t at) {
      guest.FaultRange(at, kPerTable - 1, AccessKind::kWrite);
    });
    return nanos / static_cast<double>(measured);
  };
  const Pair pair = Alternate(effort, fault, exchange);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

// Value: splits a block of 1 GiB into pages with 513 tables at hand, the break
// and the invalidation included. Limit: fills 513 tables with stores.
Measured Split1G(const Effort& effort, BbmLevel bbm) {
  Stage2Tables guest(kGiBPages << kPageShift, Level::k1G, bbm);
  Stage2State<Arm4K>& state = guest.state();
  guest.FaultRange(0, 1, AccessKind::kWrite);
  BENCH_CHECK(state.parts.counters.Leafs(Level{3}) == 1);
  S2Cache<Arm4K> cache(S2Pool<Arm4K>::Process());

  const auto split = [&] {
    BENCH_CHECK(cache.TopUp(kTablesPerGiB, kTablesPerGiB).ok());
    const double nanos = Nanos([&] { guest.Split(kGiBPages, cache); });
    BENCH_CHECK(state.parts.counters.Leafs(Level{1}) == kGiBPages);
    guest.Unmap(0, kGiBPages);
    guest.FaultRange(0, 1, AccessKind::kWrite);
    BENCH_CHECK(state.parts.counters.Leafs(Level{3}) == 1);
    RcuBarrier();
    return nanos / 1e6;
  };
  const auto fill = [&] {
    return FillTables(cache, kTablesPerGiB, 0x10'0000'07ff) / 1e6;
  };
  const Pair pair = Alternate(effort, split, fill);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

// Value: write-protects a GiB of pages. Limit: one atomic AND per entry.
Measured EnableWp(const Effort& effort) {
  Stage2Tables guest(kGiBPages << kPageShift, Level::k1G);
  guest.MapSmall(kGiBPages);
  const Tables tables = guest.SmallTables(kGiBPages);

  const auto protect = [&] {
    MakeWritable(tables);
    const double nanos = Nanos([&] {
      MmuWriteLocked lock(guest.state().parts.lock, LockOp::kEnable);
      WriteProtectStage2(guest.state(), lock, {Gfn(0), Gfn(kGiBPages)},
                         nullptr);
    });
    BENCH_CHECK(CountS2(tables, IsWritable) == 0);
    return nanos / 1e6;
  };
  const auto locked_and = [&] {
    MakeWritable(tables);
    const double nanos = ClearInAll(tables, s2_bits::kWrite);
    BENCH_CHECK(CountS2(tables, IsWritable) == 0);
    return nanos / 1e6;
  };
  const Pair pair = Alternate(effort, protect, locked_and);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

// Value: clears the sealed dirty pages of a GiB, which are all of them. Limit:
// walks to each of their entries and makes an atomic AND there.
Measured ClearDirty(const Effort& effort) {
  Stage2Tables guest(kGiBPages << kPageShift, Level::k1G);
  guest.MapSmall(kGiBPages);
  Vm& vm = guest.vm();
  BENCH_CHECK(StartLog(vm, {}, nullptr).ok());
  const Tables tables = guest.SmallTables(kGiBPages);
  BENCH_CHECK(CountS2(tables, IsWritable) == 0);
  const std::vector<uint64_t> mask(kGiBPages / 64, ~uint64_t{0});

  const auto clear = [&] {
    guest.FaultRange(0, kGiBPages, AccessKind::kWrite);
    const absl::StatusOr<testing::SealedSlot> seal = SealLog(vm, 0, nullptr);
    BENCH_CHECK(seal.ok() && seal->dirty_page_count == kGiBPages);
    uint64_t cleared = 0;
    const double nanos = Nanos([&] {
      cleared = ClearLog(vm, 0, seal->epoch, 0, kGiBPages, mask, nullptr)
                    ->cleared_page_count;
    });
    BENCH_CHECK(cleared == kGiBPages);
    BENCH_CHECK(vm.AcknowledgePages(testing::TestCall(), seal->epoch).ok());
    BENCH_CHECK(CountS2(tables, IsWritable) == 0);
    return nanos / kGiBPages;
  };
  const auto walk_and = [&] {
    MakeWritable(tables);
    const double nanos = Nanos([&] {
      for (uint64_t page = 0; page < kGiBPages; ++page) {
        benchmark::DoNotOptimize(
            guest.WalkTo(Gfn(page)).FetchAnd(~s2_bits::kWrite));
      }
    });
    BENCH_CHECK(CountS2(tables, IsWritable) == 0);
    return nanos / kGiBPages;
  };
  const Pair pair = Alternate(effort, clear, walk_and);
  return {.unit = "ns/page", .value = pair.value, .limit = pair.limit};
}

// Value: tests and clears the Access flags of all pages, of which one in a
// hundred is young. Limit: reads each entry and makes an atomic AND on the
// young ones.
Measured Age(const Effort& effort) {
  const uint64_t pages = effort.Scale(64) * kGiBPages;
  Stage2Tables guest(pages << kPageShift, Level::k1G);
  guest.MapSmall(pages);
  Vm& vm = guest.vm();
  const GfnRange all{Gfn(0), Gfn(pages)};
  BENCH_CHECK(vm.Age(all, AgeMode::kTestAndClear, nullptr).ok());
  const Tables tables = guest.SmallTables(pages);
  std::mt19937_64 random(1);
  std::vector<S2Slot*> young;
  for (S2Table<Arm4K>* table : tables) {
    for (S2Slot& slot : table->entries) {
      if (random() % 100 == 0) young.push_back(&slot);
    }
  }
  const auto rejuvenate = [&] {
    for (S2Slot* slot : young) {
      slot->Store(slot->Load().With(s2_bits::kAccessFlag));
    }
  };

  const auto age = [&] {
    rejuvenate();
    uint64_t found = 0;
    const double nanos = Nanos([&] {
      found = vm.Age(all, AgeMode::kTestAndClear, nullptr)->young_page_count;
    });
    BENCH_CHECK(found == young.size());
    return nanos / 1e6;
  };
  const auto read_and = [&] {
    rejuvenate();
    return ClearWhereSet(tables, s2_bits::kAccessFlag, young.size()) / 1e6;
  };
  const Pair pair = Alternate(effort, age, read_and);
  return {.unit = "ms", .value = pair.value, .limit = pair.limit};
}

// Value: the bytes of all tables taken from the pool, with their descriptors,
// and of the open and the sealed bitmap with their scratch halves. Limit: the
// bytes of the tables that the mappings need. Nothing is timed.
Measured Memory(const Effort& effort) {
  const uint64_t gib = effort.Scale(16);
  const uint64_t pages = gib * kGiBPages;
  RcuBarrier();
  const uint64_t before = S2Pool<Arm4K>::Process().tables_out();
  Stage2Tables guest(pages << kPageShift, Level::k1G);
  guest.MapSmall(pages);
  BENCH_CHECK(StartLog(guest.vm(), {}, nullptr).ok());
  const uint64_t tables = S2Pool<Arm4K>::Process().tables_out() - before;
  BENCH_CHECK(tables >= gib * kTablesPerGiB);
  VmState& state = guest.vm().state();
  MutexLock lock(state.slots.slots_lock);
  const Memslot& slot = *state.slots.Active(0).FindById(0);
  const uint64_t bytes = tables * (kPageSize + sizeof(S2Page<Arm4K>)) +
                         2 * slot.dirty_bitmap->allocated_bytes();
  return {.unit = "bytes/GiB",
          .value = static_cast<double>(bytes) / static_cast<double>(gib),
          .limit = double{kTablesPerGiB} * kPageSize};
}

}  // namespace

std::vector<Benchmark> Stage2Rows() {
  return {{"s2_fault_map", 3, Goal::kAtMost, FaultMap},
          {"s2_split_1g", 2, Goal::kAtMost,
           [](const Effort& effort) { return Split1G(effort, BbmLevel::k0); }},
          {"s2_split_1g_bbm2", 2, Goal::kAtMost,
           [](const Effort& effort) { return Split1G(effort, BbmLevel::k2); }},
          {"s2_enable_wp", 1.5, Goal::kAtMost, EnableWp},
          {"s2_clear_dirty", 2, Goal::kAtMost, ClearDirty},
          {"s2_age", 1.2, Goal::kAtMost, Age},
          {"s2_memory", 1.1, Goal::kAtMost, Memory}};
}

}  // namespace mmu::bench
