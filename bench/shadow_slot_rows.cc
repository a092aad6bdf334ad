// Measures operations that reach all SPTEs of a memslot through its rmaps:
// splitting the huge pages of an L2 guest, clearing W, ageing. Also measures
// the memory of the shadow MMU.

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/shadow_guest.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/rcu.h"

namespace mmu::bench {
namespace {

using Kind = ShadowGuest::Kind;

constexpr uint64_t kGib = uint64_t{1} << 30;
constexpr uint64_t kPages = PagesPer(Level::k1G);
constexpr int kTables = 513;

// L2 writes to its page of 1 GiB, so that the MMU maps it.
void TouchHuge(ShadowGuest& guest) {
  guest.Access(0, AccessKind::kWrite);
  BENCH_CHECK(guest.Leafs(Level::k1G) == 1);
}

SplitOutcome SplitData(ShadowGuest& guest) {
  const Memslot& slot = guest.data_slot();
  MutexLock slots(guest.state().slots.slots_lock);
  MmuWriteLocked lock(guest.state().mmu_lock, LockOp::kSplit);
  return guest.mmu().split().Split(lock, slot, guest.data(), Level::k4K,
                                   SplitTrigger::kRequest,
                                   guest.mmu().split_caches(), nullptr);
}

// An L2 guest of 1 GiB. L1 maps it with one huge page, whose mapping was split
// into 4K pages.
std::unique_ptr<ShadowGuest> MakeSplitGuest() {
  auto guest = std::make_unique<ShadowGuest>(Kind::kEpt, kGib, Level::k1G);
  guest->Map(0, ShadowGuest::kData, Level::k1G);
  guest->Start();
  TouchHuge(*guest);
  SplitData(*guest);
  BENCH_CHECK(guest->Leafs(Level::k4K) == kPages);
  return guest;
}

// The first entry of each shadow table of 4K pages.
std::vector<SpteSlot*> ShadowTables(ShadowGuest& guest) {
  std::vector<SpteSlot*> tables;
  for (uint64_t at = 0; at < kGib; at += BytesPer(Level::k2M)) {
    tables.push_back(&guest.WalkShadow(at));
  }
  return tables;
}

template <typename Is>
uint64_t Count(const std::vector<SpteSlot*>& tables, Is is) {
  uint64_t count = 0;
  for (const SpteSlot* table : tables) {
    for (int i = 0; i < kEntriesPerTable; ++i) count += is(table[i].Load());
  }
  return count;
}

// Value: splits 1 GiB of L2. Limit: stores the entries of 513 tables and adds
// each to an rmap. The pools have enough free tables, states and descriptors.
Measured NestedSplit(const Effort& effort) {
  ShadowGuest guest(Kind::kEpt, kGib, Level::k1G);
  guest.Map(0, ShadowGuest::kData, Level::k1G);
  guest.Start();
  VmState& state = guest.state();
  TableCache tables(state.pool);
  PteListCache no_lists(PteListPool::Process());
  const std::unique_ptr<SlotRmaps> rmaps = SlotRmaps::TryCreate(guest.data());
  BENCH_CHECK(rmaps != nullptr);

  const auto split = [&] {
    TouchHuge(guest);
    SplitOutcome outcome;
    const double nanos = Nanos([&] { outcome = SplitData(guest); });
    BENCH_CHECK(outcome.split_1g_count == 1 && outcome.split_2m_count == 512);
    BENCH_CHECK(guest.Leafs(Level::k4K) == kPages);
    guest.ZapEverything();
    BENCH_CHECK(guest.Leafs(Level::k4K) == 0);
    return nanos / 1e6;
  };
  const auto fill = [&] {
    BENCH_CHECK(tables.TopUp(kTables, kTables).ok());
    std::vector<ShadowPage*> pages;
    while (tables.count() > 0) pages.push_back(tables.Take());
    BENCH_CHECK(pages.size() == kTables);
    uint64_t entry = 0x10'0000'0877;
    MmuCounters& counters = state.counters.of(MmuKind::kShadow);
    MmuWriteLocked lock(state.mmu_lock, LockOp::kSplit);
    const auto fill_one = [&](ShadowPage* page, Gfn gfn, Level level) {
      for (SpteSlot& slot : page->table->entries) {
        slot.StoreUnpublished(Spte(entry));
        rmaps->Head(gfn, level).Add(lock, slot, no_lists, counters);
        entry += kPageSize;
        gfn = gfn + PagesPer(level);
      }
    };
    const Gfn first = guest.data().start;
    const double nanos = Nanos([&] {
      fill_one(pages[0], first, Level::k2M);
      for (int i = 1; i < kTables; ++i) {
        fill_one(pages[i], first + (i - 1) * PagesPer(Level::k2M), Level::k4K);
      }
    });
    for (const Level level : {Level::k2M, Level::k4K}) {
      for (uint64_t i = 0; i < kPages; i += PagesPer(level)) {
        BENCH_CHECK(rmaps->Head(first + i, level)
                        .ZapAll(
                            lock, [](SpteSlot&) {}, counters));
      }
    }
    for (ShadowPage* page : pages) tables.Put(page);
    tables.Clear();
    return nanos / 1e6;
  };
  const Pair pair = Alternate(effort, split, fill);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

// Value: clears W in all 4K SPTEs of L2, given as words of a bitmap, as a clear
// of the log does, but without the flush. Limit: an atomic AND on the SPTE that
// each rmap names.
Measured ClearDirtyRmaps(const Effort& effort) {
  const std::unique_ptr<ShadowGuest> guest = MakeSplitGuest();
  const std::vector<SpteSlot*> tables = ShadowTables(*guest);
  const SpteFormat& format = guest->mmu().parts().format;
  const Memslot& slot = guest->data_slot();
  const Gfn first = guest->data().start;
  const auto is_writable = [](Spte spte) { return spte.IsWritable(); };
  const auto make_writable = [&] {
    for (SpteSlot* table : tables) {
      for (int i = 0; i < kEntriesPerTable; ++i) {
        table[i].Store(format.WithWrite(table[i].Load()));
      }
    }
    BENCH_CHECK(Count(tables, is_writable) == kPages);
  };
  const auto clear = [&] {
    make_writable();
    const double nanos = Nanos([&] {
      MmuWriteLocked lock(guest->state().mmu_lock, LockOp::kClear);
      for (uint64_t page = 0; page < kPages; page += 64) {
        guest->mmu().log().WriteProtectMasked(lock, slot, first + page,
                                              ~uint64_t{0}, nullptr);
      }
    });
    BENCH_CHECK(Count(tables, is_writable) == 0);
    return nanos / kPages;
  };
  const auto rmap_and = [&] {
    make_writable();
    const SlotRmaps& rmaps = *slot.shadow_rmaps();
    const double nanos = Nanos([&] {
      MmuWriteLocked lock(guest->state().mmu_lock, LockOp::kClear);
      for (uint64_t page = 0; page < kPages; ++page) {
        rmaps.Head(first + page, Level::k4K)
            .Entries(lock)
            .sptep()
            .FetchAnd(~spte_bits::kWrite);
      }
    });
    BENCH_CHECK(Count(tables, is_writable) == 0);
    return nanos / kPages;
  };
  const Pair pair = Alternate(effort, clear, rmap_and);
  return {.unit = "ns/page", .value = pair.value, .limit = pair.limit};
}

// Value: tests and clears the Accessed bits of all pages of L2, of which one in
// a hundred is young. Limit: reads each rmap and its SPTE, and makes an atomic
// AND on the young ones.
Measured AgeRmaps(const Effort& effort) {
  const std::unique_ptr<ShadowGuest> guest = MakeSplitGuest();
  const std::vector<SpteSlot*> tables = ShadowTables(*guest);
  const SpteFormat& format = guest->mmu().parts().format;
  const Memslot& slot = guest->data_slot();
  const GfnRange all = guest->data();
  BENCH_CHECK(guest->vm().Age(all, AgeMode::kTestAndClear, nullptr).ok());
  std::mt19937_64 random(1);
  std::vector<SpteSlot*> young;
  for (SpteSlot* table : tables) {
    for (int i = 0; i < kEntriesPerTable; ++i) {
      if (random() % 100 == 0) young.push_back(&table[i]);
    }
  }
  const auto rejuvenate = [&] {
    for (SpteSlot* spte : young) spte->Store(format.WithAccessed(spte->Load()));
  };
  const auto age = [&] {
    rejuvenate();
    uint64_t found = 0;
    const double nanos = Nanos([&] {
      found = guest->vm()
                  .Age(all, AgeMode::kTestAndClear, nullptr)
                  ->young_page_count;
    });
    BENCH_CHECK(found == young.size());
    return nanos / 1e6;
  };
  const auto read_and = [&] {
    rejuvenate();
    const SlotRmaps& rmaps = *slot.shadow_rmaps();
    const uint64_t accessed = format.accessed_mask();
    uint64_t found = 0;
    const double nanos = Nanos([&] {
      MmuReadLocked lock(guest->state().mmu_lock, LockOp::kAge);
      for (uint64_t page = 0; page < kPages; ++page) {
        SpteSlot& spte =
            rmaps.Head(all.start + page, Level::k4K).Entries(lock).sptep();
        if ((spte.Load().bits() & accessed) == 0) continue;
        spte.FetchAnd(~accessed);
        ++found;
      }
      benchmark::DoNotOptimize(found);
    });
    BENCH_CHECK(found == young.size());
    return nanos / 1e6;
  };
  const Pair pair = Alternate(effort, age, read_and);
  return {.unit = "ms/GiB", .value = pair.value, .limit = pair.limit};
}

// --- Memory ---

// The bytes of all objects taken from the pools, for all VMs of the process.
uint64_t BytesOut() {
  const ShadowPools pools = ShadowPools::Process();
  return pools.tables.tables_out() * (kPageSize + sizeof(ShadowPage)) +
         pools.states.objects_out() * pools.states.object_bytes() +
         pools.translations.objects_out() * pools.translations.object_bytes() +
         pools.lists.Snapshot().descs_out * sizeof(PteListDesc);
}

// Value: the bytes of tables with their descriptors, of states, translations
// and lists, each including the reserve, and of the rmaps and the counters of
// huge pages. Limit: the bytes of the tables, and ten bytes per page for an
// rmap and the count of its trackers. Nothing is timed.
Measured MemoryOf(ShadowGuest& guest, uint64_t before) {
  BENCH_CHECK(guest.Leafs(Level::k4K) == kPages);
  uint64_t bytes = BytesOut() - before;
  const Memslot& slot = guest.data_slot();
  bytes += slot.shadow_rmaps()->allocated_bytes();
  for (const Level level : {Level::k2M, Level::k1G}) {
    bytes += slot.lpage_info->block_count(level) * sizeof(uint32_t);
  }
  return {.unit = "bytes/GiB",
          .value = static_cast<double>(bytes),
          .limit = 1.0 * kTables * kPageSize + 10.0 * kPages};
}

Measured ShadowMemory(const Effort&) {
  RcuBarrier();
  const uint64_t before = BytesOut();
  ShadowGuest guest(Kind::kGuestTables, kGib, Level::k4K);
  for (uint64_t at = 0; at < kGib; at += kPageSize) {
    guest.Map(at, ShadowGuest::kData + at);
  }
  guest.Start();
  for (uint64_t at = 0; at < kGib; at += kPageSize) {
    guest.Access(at, AccessKind::kWrite);
  }
  return MemoryOf(guest, before);
}

Measured NestedMemory(const Effort&) {
  RcuBarrier();
  const uint64_t before = BytesOut();
  return MemoryOf(*MakeSplitGuest(), before);
}

}  // namespace

std::vector<Benchmark> ShadowSlotRows() {
  return {{"nested_split", 3, Goal::kAtMost, NestedSplit},
          {"clear_dirty_rmaps", 2, Goal::kAtMost, ClearDirtyRmaps},
          {"age_rmaps", 3, Goal::kAtMost, AgeRmaps},
          {"shadow_memory", 1.1, Goal::kAtMost, ShadowMemory},
          {"nested_memory", 1.1, Goal::kAtMost, NestedMemory}};
}

}  // namespace mmu::bench
