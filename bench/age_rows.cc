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
#include "absl/time/clock.h"
#include "absl/time/time.h"
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

  struct Counts {
    uint64_t young = 0;
    uint64_t old = 0;
  };
  // Tests and clears all pages as the daemon does: GiB by GiB.
  Counts Age(AgeScan scan) {
    Counts counts;
    AgeSweep sweep =
        vm_->MakeAgeSweep({{Gfn(0), Gfn(pages_)}}, AgeMode::kTestAndClear,
                          MissingSlots::kRefuse, {.scan = scan});
    while (!sweep.done()) {
      const absl::StatusOr<AgeSweep::Piece> piece = sweep.Next(nullptr);
      BENCH_CHECK(piece.ok());
      counts.young += piece->result.young_page_count;
      counts.old += piece->result.old_page_count;
    }
    return counts;
  }
  // Age, which finds `young` pages young; milliseconds.
  double TimeAge(AgeScan scan, uint64_t young) {
    Counts aged;
    const double nanos = Nanos([&] { aged = Age(scan); });
    BENCH_CHECK(aged.young == young);
    BENCH_CHECK(aged.old == pages_ - young);
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

// 4 GiB of 4K leafs and a vCPU that accesses random pages of them. Nearly all
// accesses miss the TLB and walk.
class WalkedGuest {
 public:
  explicit WalkedGuest(const Effort& effort)
      : pages_(std::max<uint64_t>(effort.Scale(4), 1) * PagesPer(Level::k1G)),
        accesses_(effort.Scale(256 * 1024)),
        vm_(MakeVm(pages_ << kPageShift, Level::k1G)) {
    MapSmall(*vm_, pages_);
  }

  // Nanoseconds for each access, of the vCPU's thread.
  double Walk() {
    Vcpu& vcpu = *vm_->state().vcpus[0];
    std::minstd_rand random(1);
    vcpu.tlb().FlushAll();  // of what it has from before the split
    vcpu.EnterGuest();
    const double nanos = Nanos([&] {
      for (uint64_t i = 0; i < accesses_; ++i) {
        uint64_t word = 0;
        BENCH_CHECK(vcpu.Access(ToGpa(Gfn(random() % pages_)),
                                AccessKind::kRead,
                                &word) == AccessOutcome::kDone);
      }
    });
    vcpu.ExitGuest();
    return nanos / static_cast<double>(accesses_);
  }
  // The same while another thread calls `age` again and again.
  double WalkBeside(absl::FunctionRef<void(Vm&, uint64_t pages)> age) {
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> rounds{0};
    std::thread ager([&] {
      while (!stop.load()) {
        age(*vm_, pages_);
        ++rounds;
      }
    });
    while (rounds.load() == 0) std::this_thread::yield();
    const double nanos = Walk();
    stop.store(true);
    ager.join();
    return nanos;
  }

 private:
  const uint64_t pages_;
  const uint64_t accesses_;
  const std::unique_ptr<Vm> vm_;
};

// The goals are finer than the changes of the processor's speed from one second
// to the next, so value and limit take turns often.
Effort InSlices(Effort effort) {
  constexpr int kSlices = 15;
  if (!effort.quick) effort.repetitions *= kSlices;
  return effort;
}

void AgeAll(Vm& vm, uint64_t pages, AgeScan scan) {
  BENCH_CHECK(vm.Age({Gfn(0), Gfn(pages)}, AgeMode::kTestAndClear, nullptr,
                     Gfn(0), MissingSlots::kRefuse, {.scan = scan})
                  .ok());
}

// One generation at the pace of the daemon's ager: after each piece a pause
// until the thread has used 2 % of a processor, its default.
void MakeGeneration(Vm& vm, uint64_t /*pages*/) {
  constexpr int kPausesForWork = 49;
  const auto scan = vm.BeginGeneration({}).value();
  while (!scan->done()) {
    const double nanos = Nanos([&] { BENCH_CHECK(scan->Next().ok()); });
    absl::SleepFor(absl::Nanoseconds(nanos) * kPausesForWork);
  }
}

// Value and limit of one guest: each gives nanoseconds for an access.
Measured WalkRow(const Effort& effort,
                 absl::FunctionRef<double(WalkedGuest&)> value,
                 absl::FunctionRef<double(WalkedGuest&)> limit) {
  WalkedGuest guest(effort);
  const Pair pair = Alternate(
      InSlices(effort), [&] { return value(guest); },
      [&] { return limit(guest); });
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

double Alone(WalkedGuest& guest) { return guest.Walk(); }
double BesideAger(WalkedGuest& guest) {
  return guest.WalkBeside(MakeGeneration);
}
double BesideAgeing(WalkedGuest& guest) {
  return guest.WalkBeside([](Vm& vm, uint64_t pages) {
    AgeAll(vm, pages, AgeScan::kWalkedTables);
  });
}
double BesideScan(WalkedGuest& guest) {
  return guest.WalkBeside(
      [](Vm& vm, uint64_t pages) { AgeAll(vm, pages, AgeScan::kAllLeafs); });
}

// Value: accesses while generations are made at the pace of the daemon's ager.
// Limit: the same alone.
Measured WalkUnderAger(const Effort& effort) {
  return WalkRow(effort, BesideAger, Alone);
}

// Value: accesses while another thread ages the guest without a pause. Limit:
// the same alone.
Measured WalkWhileAged(const Effort& effort) {
  return WalkRow(effort, BesideAgeing, Alone);
}

// Value: as in WalkWhileAged. Limit: the other thread reads all leafs each
// time. The difference is the cost of clearing the entries above the leafs.
Measured WalkAgainstScan(const Effort& effort) {
  return WalkRow(effort, BesideAgeing, BesideScan);
}

}  // namespace

std::vector<Benchmark> AgeRows() {
  return {{"age_scan", 1.2, Goal::kAtMost, ScanOfAll},
          {"age_idle", 0.03, Goal::kAtMost, Idle},
          {"age_clustered_1pct", 0.1, Goal::kAtMost, ClusteredYoung},
          {"age_strewn_1pct", 1.1, Goal::kAtMost, StrewnYoung},
          {"walk_under_ager", 1.02, Goal::kAtMost, WalkUnderAger},
          {"walk_while_aged", 1.02, Goal::kAtMost, WalkWhileAged},
          {"walk_against_scan", 1.05, Goal::kAtMost, WalkAgainstScan}};
}

}  // namespace mmu::bench
