// Measures the cost of a guest's writes to its page tables.

#include <cstdint>
#include <vector>

#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/shadow_guest.h"
#include "benchmark/benchmark.h"
#include "mmu_core/shadow/shadow_page_state.h"

namespace mmu::bench {
namespace {

using Kind = ShadowGuest::Kind;

// --- Emulated writes ---

// Value: the MMU's reaction to an emulated write of one entry of `level`, 4K or
// 2M. Each entry is in a different table, so that no table is zapped for being
// written too often. Limit: reads the guest's entry and exchanges the SPTE.
Measured GuestPteWrite(const Effort& effort, Level level) {
  const uint64_t count = effort.Scale(512);
  ShadowGuest guest(Kind::kGuestTables, count << kPageShift, Level::k4K);
  for (uint64_t i = 0; i < count; ++i) {
    guest.Map(i << 30, ShadowGuest::kData + (i << kPageShift));
  }
  guest.Start();
  std::vector<Gpa> entries;
  std::vector<const uint64_t*> words;
  for (uint64_t i = 0; i < count; ++i) {
    entries.push_back(guest.TableOf(i << 30, level));
    words.push_back(guest.HostTable(entries.back()));
  }
  const auto map_all = [&] {
    for (uint64_t i = 0; i < count; ++i) {
      guest.Access(i << 30, AccessKind::kWrite);
    }
  };
  const auto slot_of = [&](uint64_t i) -> SpteSlot& {
    PageTable* table = guest.shadow().roots().table();
    for (Level at = guest.shadow().roots().level(); at > level;
         at = ChildOf(at)) {
      const uint64_t index = IndexOf(Gfn((i << 30) >> kPageShift), at);
      table = mmu::TableOf(table->entries[index].Load());
    }
    return table->entries[0];
  };
  map_all();
  std::vector<SpteSlot*> slots;
  for (uint64_t i = 0; i < count; ++i) slots.push_back(&slot_of(i));
  const auto present = [&] {
    uint64_t n = 0;
    for (const SpteSlot* slot : slots) n += slot->Load().IsPresent();
    return n;
  };

  const auto react = [&] {
    map_all();
    BENCH_CHECK(present() == count);
    GuestWords& memory = guest.shadow().memory();
    const double nanos = Nanos([&] {
      for (const Gpa entry : entries) {
        guest.mmu().pte_writes().Written(0, entry, 8, memory, nullptr);
      }
    });
    BENCH_CHECK(present() == 0);
    return nanos / count;
  };
  const auto exchange = [&] {
    map_all();
    std::vector<Spte> old(count);
    uint64_t sum = 0;
    const double nanos = Nanos([&] {
      for (uint64_t i = 0; i < count; ++i) {
        sum += *words[i];
        old[i] = slots[i]->Exchange(Spte::Initial());
      }
      benchmark::DoNotOptimize(sum);
    });
    for (uint64_t i = 0; i < count; ++i) slots[i]->Store(old[i]);
    return nanos / count;
  };
  const Pair pair = Alternate(effort, react, exchange);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

// --- Tables that are out of step ---

// A guest with 4K tables. Shadow pages map all of their entries. The guest also
// maps the tables themselves, so that it can write to them.
class UnsyncGuest {
 public:
  explicit UnsyncGuest(uint64_t tables)
      : tables_(tables),
        guest_(Kind::kGuestTables, tables * BytesPer(Level::k2M), Level::k4K) {
    for (uint64_t page = 0; page < pages(); ++page) {
      guest_.Map(page << kPageShift, ShadowGuest::kData + (page << kPageShift));
    }
    for (uint64_t i = 0; i < tables; ++i) {
      gpas_.push_back(guest_.TableOf(i * BytesPer(Level::k2M), Level::k4K));
      words_.push_back(guest_.HostTable(gpas_.back()));
      guest_.Map(kWindow + (i << kPageShift), gpas_.back());
    }
    guest_.Start();
    for (uint64_t page = 0; page < pages(); ++page) {
      guest_.Access(page << kPageShift, AccessKind::kWrite);
    }
    for (uint64_t i = 0; i < tables; ++i) {
      sptes_.push_back(&guest_.WalkShadow(i * BytesPer(Level::k2M)));
    }
  }

  uint64_t pages() const { return tables_ * kEntriesPerTable; }
  ShadowGuest& guest() { return guest_; }

  // The guest writes to each table, which makes its shadow page unsync.
  void Unsync() {
    for (uint64_t i = 0; i < tables_; ++i) {
      guest_.Access(kWindow + (i << kPageShift), AccessKind::kWrite,
                    words_[i][0]);
    }
    BENCH_CHECK(UnsyncPages() == tables_);
  }
  uint64_t UnsyncPages() const {
    uint64_t n = 0;
    for (const SpteSlot* spte : sptes_) n += PageHolding(*spte).unsync;
    return n;
  }
  // The number of guest entries that differ from their SPTEs: 0, since the
  // guest writes the old values again.
  uint64_t CountDifferent() const {
    uint64_t different = 0;
    for (uint64_t t = 0; t < tables_; ++t) {
      for (int i = 0; i < kEntriesPerTable; ++i) {
        different += Differs(words_[t][i], sptes_[t][i].Load());
      }
    }
    return different;
  }
  bool Differs(uint64_t entry, Spte spte) const {
    return ((entry & kWritable) != 0) > spte.IsWritable() || !spte.IsPresent();
  }
  uint64_t EntryOf(uint64_t page) const {
    return words_[page / kEntriesPerTable][page % kEntriesPerTable];
  }

 private:
  static constexpr uint64_t kWindow = uint64_t{1} << 38;
  static constexpr uint64_t kWritable = 2;

  const uint64_t tables_;
  ShadowGuest guest_;
  std::vector<Gpa> gpas_;
  std::vector<const uint64_t*> words_;
  std::vector<SpteSlot*> sptes_;
};

// Value: CR3 is loaded while pages are unsync. Limit: reads the 512 SPTEs of
// each page and the guest's entries, and compares them.
Measured SyncPage(const Effort& effort) {
  const uint64_t tables = effort.Scale(64);
  UnsyncGuest unsync(tables);
  const auto sync = [&] {
    unsync.Unsync();
    const double nanos =
        Nanos([&] { unsync.guest().ReloadRoot(ShadowVcpu::Flush::kYes); });
    BENCH_CHECK(unsync.UnsyncPages() == 0);
    return nanos / tables;
  };
  const auto compare = [&] {
    unsync.Unsync();
    uint64_t different = 0;
    const double nanos = Nanos([&] {
      different = unsync.CountDifferent();
      benchmark::DoNotOptimize(different);
    });
    BENCH_CHECK(different == 0);
    return nanos / tables;
  };
  const Pair pair = Alternate(effort, sync, compare);
  return {.unit = "ns/page", .value = pair.value, .limit = pair.limit};
}

// Value: INVLPG of each page that unsync tables map. Limit: walks to the SPTE
// and compares it with the guest's entry.
Measured Invlpg(const Effort& effort) {
  UnsyncGuest unsync(effort.Scale(64));
  ShadowGuest& guest = unsync.guest();
  unsync.Unsync();
  const uint64_t pages = unsync.pages();
  const auto invalidate = [&] {
    const uint64_t before = guest.state().vcpus[0]->stats().invlpg.Get();
    const double nanos = Nanos([&] {
      for (uint64_t page = 0; page < pages; ++page) {
        guest.shadow().InvalidatePage(page << kPageShift);
      }
    });
    BENCH_CHECK(guest.state().vcpus[0]->stats().invlpg.Get() ==
                static_cast<int64_t>(before + pages));
    BENCH_CHECK(unsync.CountDifferent() == 0);
    return nanos / pages;
  };
  const auto compare = [&] {
    uint64_t different = 0;
    const double nanos = Nanos([&] {
      for (uint64_t page = 0; page < pages; ++page) {
        different += unsync.Differs(
            unsync.EntryOf(page), guest.WalkShadow(page << kPageShift).Load());
      }
      benchmark::DoNotOptimize(different);
    });
    BENCH_CHECK(different == 0);
    return nanos / pages;
  };
  const Pair pair = Alternate(effort, invalidate, compare);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> ShadowTableRows() {
  const auto written = [](Level level) {
    return
        [level](const Effort& effort) { return GuestPteWrite(effort, level); };
  };
  return {{"guest_pte_write", 3, Goal::kAtMost, written(Level::k4K)},
          {"guest_pde_write", 3, Goal::kAtMost, written(Level::k2M)},
          {"sync_page", 3, Goal::kAtMost, SyncPage},
          {"invlpg", 3, Goal::kAtMost, Invlpg}};
}

}  // namespace mmu::bench
