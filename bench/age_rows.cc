// Measures the cost of ageing pages.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "bench/table_limits.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_pool.h"

namespace mmu::bench {
namespace {

// 64 GiB of 4K leafs that were aged, and their tables.
class AgedGuest {
 public:
  explicit AgedGuest(const Effort& effort)
      : pages_(effort.Scale(64) * PagesPer(Level::k1G)),
        vm_(MakeVm(pages_ << kPageShift, Level::k1G)) {
    MapSmall(*vm_, pages_);
    Age(AgeScan::kWalkedTables);
    tables_ = SmallTables(*vm_, pages_);
  }

  AgeResult Age(AgeScan scan) {
    absl::StatusOr<AgeResult> aged =
        vm_->Age({Gfn(0), Gfn(pages_)}, AgeMode::kTestAndClear, nullptr, Gfn(0),
                 MissingSlots::kRefuse, {.scan = scan});
    BENCH_CHECK(aged.ok());
    return *std::move(aged);
  }
  // Tests and clears all pages, of which `young` are young; milliseconds.
  double TimeAge(AgeScan scan, uint64_t young) {
    AgeResult aged;
    const double nanos = Nanos([&] { aged = Age(scan); });
    BENCH_CHECK(aged.young_page_count == young);
    BENCH_CHECK(aged.old_page_count == pages_ - young);
    BENCH_CHECK(CountAccessed() == 0);
    return nanos / 1e6;
  }
  // Also displaces what an ageing has left in the caches.
  uint64_t CountAccessed() const {
    return CountSptes(tables_,
                      [&](Spte spte) { return format().IsAccessed(spte); });
  }
  // Does to a leaf and to the entry above it what a walk does.
  void Access(SpteSlot& slot) const {
    slot.Store(format().WithAccessed(slot.Load()));
    const auto* table = TableHolding(slot);
    SpteSlot& above = *TablePool::DescriptorOf(table)->parent;
    above.Store(format().WithAccessed(above.Load()));
  }

  const SpteFormat& format() const { return vm_->state().tdp.format(); }
  const std::vector<PageTable*>& tables() const { return tables_; }

 private:
  const uint64_t pages_;
  const std::unique_ptr<Vm> vm_;
  std::vector<PageTable*> tables_;
};

// One page in a hundred, at random.
std::vector<SpteSlot*> Strewn(const AgedGuest& guest) {
  std::mt19937_64 random(1);
  std::vector<SpteSlot*> young;
  for (PageTable* table : guest.tables()) {
    for (SpteSlot& slot : table->entries) {
      if (random() % 100 == 0) young.push_back(&slot);
    }
  }
  return young;
}

// All pages of one table in a hundred, at random.
std::vector<SpteSlot*> Clustered(const AgedGuest& guest) {
  std::mt19937_64 random(1);
  std::vector<SpteSlot*> young;
  for (PageTable* table : guest.tables()) {
    if (random() % 100 != 0) continue;
    for (SpteSlot& slot : table->entries) young.push_back(&slot);
  }
  return young;
}

// Value: reads all leafs, of which one in a hundred is young, and clears their
// Accessed bits. Limit: reads each entry and makes an atomic AND on the young
// ones.
Measured ScanOfAll(const Effort& effort) {
  AgedGuest guest(effort);
  const std::vector<SpteSlot*> young = Strewn(guest);
  const auto rejuvenate = [&] {
    for (SpteSlot* slot : young) guest.Access(*slot);
  };
  const Pair pair = Alternate(
      effort,
      [&] {
        rejuvenate();
        return guest.TimeAge(AgeScan::kAllLeafs, young.size());
      },
      [&] {
        rejuvenate();
        return ClearWhereSet(guest.tables(), guest.format().accessed_mask(),
                             young.size()) /
               1e6;
      });
  return {.unit = "ms", .value = pair.value, .limit = pair.limit};
}

// Value: leaves out the tables that were not used. Limit: reads all leafs.
Measured Against(
    const Effort& effort,
    absl::FunctionRef<std::vector<SpteSlot*>(const AgedGuest&)> choose) {
  AgedGuest guest(effort);
  const std::vector<SpteSlot*> young = choose(guest);
  const auto time = [&](AgeScan scan) {
    // All tables are counted, and none was used since.
    guest.Age(AgeScan::kWalkedTables);
    for (SpteSlot* slot : young) guest.Access(*slot);
    BENCH_CHECK(guest.CountAccessed() == young.size());
    return guest.TimeAge(scan, young.size());
  };
  const Pair pair = Alternate(
      effort, [&] { return time(AgeScan::kWalkedTables); },
      [&] { return time(AgeScan::kAllLeafs); });
  return {.unit = "ms", .value = pair.value, .limit = pair.limit};
}

Measured Idle(const Effort& effort) {
  return Against(effort,
                 [](const AgedGuest&) { return std::vector<SpteSlot*>(); });
}
Measured ClusteredYoung(const Effort& effort) {
  return Against(effort, Clustered);
}
Measured StrewnYoung(const Effort& effort) { return Against(effort, Strewn); }

// Value: accesses of a vCPU to random pages of 4 GiB, nearly all of which miss
// the TLB and walk, while another thread ages the guest without a pause. Limit:
// the same alone. Processor time of the vCPU's thread.
Measured WalkWhileAged(const Effort& effort) {
  const uint64_t gib = std::max<uint64_t>(effort.Scale(4), 1);
  const uint64_t pages = gib * PagesPer(Level::k1G);
  const uint64_t accesses = effort.Scale(4'000'000);
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k1G);
  MapSmall(*vm, pages);
  Vcpu& vcpu = *vm->state().vcpus[0];
  std::atomic<uint64_t> rounds{0};
  const auto walk = [&] {
    std::minstd_rand random(1);
    vcpu.tlb().FlushAll();  // of what it has from before the split
    vcpu.EnterGuest();
    const double nanos = Nanos([&] {
      for (uint64_t i = 0; i < accesses; ++i) {
        uint64_t word = 0;
        BENCH_CHECK(vcpu.Access(ToGpa(Gfn(random() % pages)), AccessKind::kRead,
                                &word) == AccessOutcome::kDone);
      }
    });
    vcpu.ExitGuest();
    return nanos / static_cast<double>(accesses);
  };
  const Pair pair = Alternate(
      effort,
      [&] {
        std::atomic<bool> stop{false};
        const uint64_t before = rounds.load();
        std::thread ager([&] {
          while (!stop.load()) {
            BENCH_CHECK(
                vm->Age({Gfn(0), Gfn(pages)}, AgeMode::kTestAndClear, nullptr)
                    .ok());
            ++rounds;
          }
        });
        const double nanos = walk();
        stop.store(true);
        ager.join();
        BENCH_CHECK(rounds.load() > before);
        return nanos;
      },
      walk);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> AgeRows() {
  return {{"age_scan", 1.2, Goal::kAtMost, ScanOfAll},
          {"age_idle", 0.03, Goal::kAtMost, Idle},
          {"age_clustered_1pct", 0.1, Goal::kAtMost, ClusteredYoung},
          {"age_strewn_1pct", 1.1, Goal::kAtMost, StrewnYoung},
          {"walk_while_aged", 1.02, Goal::kAtMost, WalkWhileAged}};
}

}  // namespace mmu::bench
