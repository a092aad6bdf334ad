#include "mmu_core/stats/counter_table.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vcpu_counters.h"
#include "mmu_core/stats/vm_counters.h"

namespace mmu {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// The fields of a row that the tests below compare, from either table.
struct Row {
  std::string name;
  CounterKind kind;
  CounterUnit unit;
  bool listed;
  bool is_histogram;
  CounterMetric metric;
  CounterMetric vm_metric;
};

std::vector<Row> AllRows() {
  std::vector<Row> all;
  const auto add = [&all](const auto& rows) {
    for (const auto& row : rows) {
      all.push_back({std::string(row.name), row.kind, row.unit,
                     row.in_statistics == InStatistics::kYes,
                     row.histogram != nullptr, row.metric, row.vm_metric});
    }
  };
  add(VmCounterRows());
  add(VcpuCounterRows());
  add(ProcessCounterRows());
  return all;
}

std::vector<std::string> NamesOf(const std::function<bool(const Row&)>& test) {
  std::vector<std::string> names;
  for (const Row& row : AllRows()) {
    if (test(row)) names.push_back(row.name);
  }
  return names;
}

bool IsMetric(const Row& row) {
  return !row.metric.family.empty() || !row.vm_metric.family.empty();
}

template <typename Fn>
void ForEachPlace(VmStatsSnapshot& vm, const Fn& fn) {
  for (const VmCounterRow& row : VmCounterRows()) {
    row.ForEach([&](const CounterIndex& i) { fn(row, vm, i); });
  }
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    row.ForEach([&](const CounterIndex& i) { fn(row, vm.vcpus, i); });
  }
}

// Finds the statistics of the second argument's type in `other`.
VmStatsSnapshot& SameIn(VmStatsSnapshot& other, const VmStatsSnapshot&) {
  return other;
}
VcpuStatsSnapshot& SameIn(VmStatsSnapshot& other, const VcpuStatsSnapshot&) {
  return other.vcpus;
}

// A snapshot in which all numbers differ, counting from `first`. Each histogram
// has as many values as its number, of as many nanoseconds each.
VmStatsSnapshot Filled(uint64_t first) {
  VmStatsSnapshot vm;
  uint64_t next = first;
  ForEachPlace(vm, [&next](const auto& row, auto& snapshot, const auto& i) {
    if (row.histogram == nullptr) {
      row.Value(snapshot, i) = next++;
    } else {
      row.Histogram(snapshot, i).Record(static_cast<int64_t>(next++));
    }
  });
  return vm;
}

TEST(CounterTableTest, EachCounterHasANameOfItsOwn) {
  std::set<std::string> names;
  VmStatsSnapshot vm;
  ForEachPlace(vm, [&names](const auto& row, auto&, const auto& i) {
    EXPECT_TRUE(names.insert(row.NameAt(i)).second) << row.NameAt(i);
  });
  for (const ProcessCounterRow& row : ProcessCounterRows()) {
    row.ForEach([&](const CounterIndex& i) {
      EXPECT_TRUE(names.insert(row.NameAt(i)).second) << row.NameAt(i);
    });
  }
  std::set<std::string_view> families;
  for (const Row& row : AllRows()) {
    for (const CounterMetric& metric : {row.metric, row.vm_metric}) {
      if (metric.family.empty()) continue;
      EXPECT_TRUE(families.insert(metric.family).second) << metric.family;
    }
  }
}

// Each counter that is shown nowhere, or in one place only, is listed here, so
// that none is forgotten.
TEST(CounterTableTest, EachCounterIsShownOrNamedHere) {
  // /metrics leaves these out: other series have the same number with more
  // labels, or a sum over several VMs would mean nothing.
  EXPECT_THAT(
      NamesOf([](const Row& row) { return row.listed && !IsMetric(row); }),
      UnorderedElementsAre(
          "remote_tlb_flush", "remote_tlb_flush_requests", "pages_4k",
          "pages_2m", "pages_1g", "table_pages", "max_mmu_rmap_size",
          "max_mmu_page_hash_collisions", "nx_lpage_splits", "pf_taken",
          "pf_fixed", "pf_emulate", "pf_spurious", "pf_fast",
          "pf_mmio_spte_created", "pf_guest", "pf_retried", "tlb_flush",
          "invlpg", "accesses", "writes", "page_tables_in_use",
          "page_tables_in_grace_period"));
  EXPECT_THAT(
      NamesOf([](const Row& row) { return IsMetric(row) && !row.listed; }),
      UnorderedElementsAre(
          "mmu_lock_wait", "mmu_lock_hold", "mmu_lock_hold_of_op",
          "mmu_lock_acquisitions", "mmu_lock_contended", "mmu_lock_yields",
          "rmap_lock_contended", "tlb_flushes", "tlb_flush_requests",
          "tlb_flush_vcpus_kicked", "tlb_flush_elided", "tlb_flush_time",
          "pages_mapped", "table_pages_of_mmu", "huge_page_splits",
          "huge_page_split_failures", "huge_page_split_chunk",
          "split_throttled", "huge_page_recoveries", "undelivered_slots",
          "harvested_pages", "cleared_pages", "dirty_ring_entries",
          "dirty_ring_used_entries", "vcpus_waiting_for_ring",
          "dirty_log_start", "dirty_log_seal", "dirty_log_clear", "aged_pages",
          "aging", "page_faults", "page_fault_time", "ring_full_exits",
          "page_tables_by_state"));
  // GetDirtyRate shows dirty_log_faults, a workload's statistics the others.
  EXPECT_THAT(
      NamesOf([](const Row& row) { return !IsMetric(row) && !row.listed; }),
      UnorderedElementsAre("dirty_log_faults", "faults", "slow_faults",
                           "fault_errors"));
}

// Each number of a snapshot has a row, and no two rows have the same number.
TEST(CounterTableTest, EachNumberOfASnapshotHasOneRow) {
  VmStatsSnapshot vm;
  std::set<const void*> places;
  size_t vm_bytes = 0;
  size_t vcpu_bytes = 0;
  ForEachPlace(vm, [&](const auto& row, auto& snapshot, const auto& i) {
    ASSERT_NE(row.value == nullptr, row.histogram == nullptr) << row.name;
    const bool is_number = row.value != nullptr;
    const void* const place =
        is_number ? static_cast<const void*>(&row.Value(snapshot, i))
                  : static_cast<const void*>(&row.Histogram(snapshot, i));
    EXPECT_TRUE(places.insert(place).second) << row.NameAt(i);
    const bool of_vm = static_cast<void*>(&snapshot) == static_cast<void*>(&vm);
    (of_vm ? vm_bytes : vcpu_bytes) +=
        is_number ? sizeof(uint64_t) : sizeof(LatencySnapshot);
  });
  EXPECT_EQ(vcpu_bytes, sizeof(VcpuStatsSnapshot));
  EXPECT_EQ(vm_bytes, sizeof(VmStatsSnapshot) - sizeof(VcpuStatsSnapshot));
}

// They are listed and exported; two of them under two names.
TEST(CounterTableTest, EachNumberOfTheProcessIsListedAndExported) {
  const ProcessStatsSnapshot process;
  std::set<const uint64_t*> listed;
  std::set<const uint64_t*> exported;
  for (const ProcessCounterRow& row : ProcessCounterRows()) {
    row.ForEach([&](const CounterIndex& i) {
      const uint64_t* const place = &row.value(process, i);
      if (row.in_statistics == InStatistics::kYes) listed.insert(place);
      if (!row.metric.family.empty()) exported.insert(place);
    });
  }
  EXPECT_EQ(listed.size(), sizeof(ProcessStatsSnapshot) / sizeof(uint64_t));
  EXPECT_EQ(exported, listed);
}

TEST(CounterTableTest, MetricsAreNamedAsTheirKindAndUnitSay) {
  for (const Row& row : AllRows()) {
    for (const CounterMetric& metric : {row.metric, row.vm_metric}) {
      if (metric.family.empty()) continue;
      const bool is_counter =
          !row.is_histogram && row.kind == CounterKind::kCumulative;
      EXPECT_FALSE(metric.help.empty()) << metric.family;
      EXPECT_EQ(metric.family.ends_with("_total"), is_counter) << metric.family;
      EXPECT_EQ(metric.family.find("_seconds") != std::string_view::npos,
                row.unit == CounterUnit::kNanoseconds)
          << metric.family;
      EXPECT_EQ(metric.family.ends_with("_bytes"),
                row.unit == CounterUnit::kBytes)
          << metric.family;
    }
    if (row.is_histogram) {
      EXPECT_EQ(row.kind, CounterKind::kCumulative) << row.name;
      EXPECT_EQ(row.unit, CounterUnit::kNanoseconds) << row.name;
      EXPECT_FALSE(row.listed) << row.name;
    }
  }
}

// So no number stays 0 in every copy because its row does not say what counts
// it.
TEST(CounterTableTest, EachCounterIsCopiedFromItsRowOrNamedHere) {
  std::vector<std::string> from_elsewhere;
  const auto look = [&from_elsewhere](const auto& rows) {
    for (const auto& row : rows) {
      EXPECT_TRUE(row.live == nullptr || row.value != nullptr) << row.name;
      EXPECT_TRUE(row.live_histogram == nullptr || row.histogram != nullptr)
          << row.name;
      EXPECT_TRUE(row.derived == nullptr ||
                  (row.live == nullptr && row.value != nullptr))
          << row.name;
      if (row.live == nullptr && row.live_histogram == nullptr &&
          row.derived == nullptr) {
        from_elsewhere.emplace_back(row.name);
      }
    }
  };
  look(VmCounterRows());
  EXPECT_THAT(
      from_elsewhere,
      UnorderedElementsAre(
          // Memslots and the list of split pages.
          "guest_memory_bytes", "shadow_page_limit", "nx_lpage_splits",
          // mmu_lock.
          "mmu_lock_wait", "mmu_lock_hold", "mmu_lock_hold_of_op",
          "mmu_lock_acquisitions", "mmu_lock_contended", "mmu_lock_yields",
          // The TLBs.
          "remote_tlb_flush", "remote_tlb_flush_requests", "tlb_flushes",
          "tlb_flush_requests", "tlb_flush_vcpus_kicked", "tlb_flush_elided",
          "tlb_flush_time", "tlbi",
          // The dirty log and its rings.
          "undelivered_slots", "dirty_ring_entries", "dirty_ring_used_entries",
          "vcpus_waiting_for_ring"));
  from_elsewhere.clear();
  look(VcpuCounterRows());
  // VcpuStats adds them up.
  EXPECT_THAT(
      from_elsewhere,
      UnorderedElementsAre("pf_taken", "pf_fixed", "pf_emulate", "pf_spurious",
                           "pf_fast", "pf_retried", "page_faults", "faults",
                           "slow_faults", "fault_errors", "stall"));
}

// Each counter has a number of its own, so that no row copies another's.
TEST(CounterTableTest, ACopyHasEachCounterOfAVmUnderItsOwnName) {
  VmCounters counters;
  MmuCounters& tdp = counters.of(MmuKind::kTdp);
  MmuCounters& shadow = counters.of(MmuKind::kShadow);
  tdp.AddLeafs(Level::k4K, 1);
  tdp.AddLeafs(Level::k2M, 2);
  shadow.AddLeafs(Level::k2M, 3);
  shadow.AddLeafs(Level::k1G, 4);
  tdp.AddTables(5);
  shadow.AddTables(6);
  tdp.CountSplit(Level::k2M, SplitTrigger::kNx);
  shadow.CountSplit(Level::k1G, SplitTrigger::kEager);
  tdp.CountSplitFailure(SplitFailure::kRaced);
  shadow.CountSplitFailure(SplitFailure::kRaced);
  tdp.CountRecoveries(Level::k1G, 7);
  shadow.CountRecoveries(Level::k2M, 8);
  tdp.CountAged(AgingLock::kNone, 9, 10);
  tdp.CountAged(AgingLock::kWrite, 0, 27);
  tdp.rmap_lock_contended = 11;
  shadow.rmap_lock_contended = 12;
  uint64_t next = 20;
  for (std::atomic<uint64_t>* counter :
       {&shadow.shadow.mmu_shadow_zapped, &shadow.shadow.mmu_pte_write,
        &shadow.shadow.mmu_pde_zapped, &shadow.shadow.mmu_flooded,
        &shadow.shadow.mmu_recycled, &shadow.shadow.mmu_cache_miss,
        &shadow.shadow.mmu_shadow_pages, &shadow.shadow.mmu_unsync,
        &shadow.shadow.max_mmu_rmap_size,
        &shadow.shadow.max_mmu_page_hash_collisions, &counters.harvested_pages,
        &counters.cleared_pages}) {
    *counter = next++;
  }
  // What two MMUs have in common: a sum, but of a peak the highest.
  tdp.shadow.mmu_flooded = 100;
  tdp.shadow.max_mmu_rmap_size = 100;
  counters.split_throttled_nanos[static_cast<int>(ThrottleLimit::kPause)] = 13;
  for (LatencyHistogram* histogram :
       {&counters.split_chunk, &counters.dirty_log_start,
        &counters.dirty_log_seal, &counters.dirty_log_clear, &counters.aging}) {
    histogram->Record(static_cast<int64_t>(next++));
  }

  VmStatsSnapshot s;
  s.guest_memory_bytes = 14;
  CopyCounters(counters, &s);
  const MmuStatsSnapshot& of_tdp = s.mmus[static_cast<int>(MmuKind::kTdp)];
  const MmuStatsSnapshot& of_shadow =
      s.mmus[static_cast<int>(MmuKind::kShadow)];
  EXPECT_THAT(of_tdp.leafs, ElementsAre(1, 2, 0));
  EXPECT_THAT(of_shadow.leafs, ElementsAre(0, 3, 4));
  EXPECT_EQ(of_tdp.tables, 5u);
  EXPECT_EQ(of_shadow.tables, 6u);
  EXPECT_THAT(of_tdp.splits, ElementsAre(ElementsAre(0, 0, 0, 1, 0), Each(0)));
  EXPECT_THAT(of_shadow.splits,
              ElementsAre(Each(0), ElementsAre(1, 0, 0, 0, 0)));
  EXPECT_THAT(of_tdp.aged,
              ElementsAre(ElementsAre(9, 10), Each(0), ElementsAre(0, 27)));
  EXPECT_THAT(of_shadow.aged, Each(Each(0)));
  EXPECT_THAT((std::vector<uint64_t>{s.pages_4k, s.pages_2m, s.pages_1g,
                                     s.table_pages}),
              ElementsAre(1, 5, 4, 11));
  EXPECT_THAT(s.split_failures, ElementsAre(0, 2, 0, 0));
  EXPECT_THAT(s.recoveries, ElementsAre(8, 7));
  EXPECT_EQ(s.rmap_lock_contended, 23u);
  EXPECT_THAT(
      (std::vector<uint64_t>{
          s.mmu_shadow_zapped, s.mmu_pte_write, s.mmu_pde_zapped, s.mmu_flooded,
          s.mmu_recycled, s.mmu_cache_miss, s.mmu_shadow_pages, s.mmu_unsync,
          s.max_mmu_rmap_size, s.max_mmu_page_hash_collisions,
          s.harvested_pages, s.cleared_pages}),
      ElementsAre(20, 21, 22, 123, 24, 25, 26, 27, 100, 29, 30, 31));
  EXPECT_THAT(s.split_throttled_nanos, ElementsAre(0, 0, 0, 0, 13));
  EXPECT_THAT((std::vector<int64_t>{
                  s.split_chunk.sum_nanos, s.dirty_log_start.sum_nanos,
                  s.dirty_log_seal.sum_nanos, s.dirty_log_clear.sum_nanos,
                  s.aging.sum_nanos}),
              ElementsAre(32, 33, 34, 35, 36));
  EXPECT_EQ(s.guest_memory_bytes, 14u) << "comes from elsewhere";
}

// The counters may change between the copy of a part and that of the next. So
// the sums are of the copies, not of the counters.
TEST(CounterTableTest, SumsOverTheMmusAreThoseOfTheirCopies) {
  VmStatsSnapshot s;
  s.mmus[0] = {.leafs = {1, 2, 3}, .tables = 4};
  s.mmus[1] = {.leafs = {10, 20, 30}, .tables = 40};
  std::map<std::string, uint64_t> sums;
  for (const VmCounterRow& row : VmCounterRows()) {
    if (row.derived == nullptr) continue;
    EXPECT_EQ(row.live, nullptr) << row.name;
    sums[row.NameAt({})] = row.derived(s, {});
  }
  EXPECT_THAT(sums, ElementsAre(Pair("pages_1g", 33), Pair("pages_2m", 22),
                                Pair("pages_4k", 11), Pair("table_pages", 44)));
}

TEST(CounterTableTest, ASnapshotAgreesWithItselfWhileAGuestRuns) {
  VmCounters counters;
  std::atomic<bool> stop = false;
  std::thread guest([&] {
    while (!stop.load()) {
      for (const MmuKind kind : {MmuKind::kTdp, MmuKind::kShadow}) {
        counters.of(kind).AddLeafs(Level::k4K, 1);
        counters.of(kind).AddTables(1);
      }
    }
  });
  for (int i = 0; i < 1000; ++i) {
    VmStatsSnapshot s;
    CopyCounters(counters, &s);
    EXPECT_EQ(s.pages_4k, s.mmus[0].leafs[0] + s.mmus[1].leafs[0]);
    EXPECT_EQ(s.table_pages, s.mmus[0].tables + s.mmus[1].tables);
  }
  stop = true;
  guest.join();
}

TEST(CounterTableTest, ACopyHasEachCounterOfAVcpuUnderItsOwnName) {
  VcpuCounters counters;
  int64_t next = 1;
  for (OwnedCounter* counter :
       {&counters.pf_mmio_spte_created, &counters.pf_guest, &counters.tlb_flush,
        &counters.invlpg, &counters.accesses, &counters.writes,
        &counters.dirty_pages, &counters.dirty_log_faults,
        &counters.ring_full_exits}) {
    counter->Add(next++);
  }
  counters.fault_fast.Record(next++);
  counters.fault_slow.Record(next++);
  VcpuStatsSnapshot s;
  CopyCounters(counters, &s);
  EXPECT_THAT(
      (std::vector<uint64_t>{s.pf_mmio_spte_created, s.pf_guest, s.tlb_flush,
                             s.invlpg, s.accesses, s.writes, s.dirty_pages,
                             s.dirty_log_faults, s.ring_full_exits}),
      ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(s.fault_fast.sum_nanos, 10);
  EXPECT_EQ(s.fault_slow.sum_nanos, 11);
}

TEST(CounterTableTest, CountersOfVmsAddUpAsTheirKindSays) {
  const VmStatsSnapshot first = Filled(1000);
  const VmStatsSnapshot second = Filled(50);
  VmStatsSnapshot both;
  AddUp(first, &both);
  AddUp(second, &both);
  VmStatsSnapshot gone;
  AddWhatStays(first, &gone);
  AddWhatStays(second, &gone);
  uint64_t offset = 0;
  ForEachPlace(both, [&](const auto& row, auto& snapshot, const auto& i) {
    SCOPED_TRACE(row.NameAt(i));
    const auto& gone_snapshot = SameIn(gone, snapshot);
    const uint64_t sum = 1050 + 2 * offset;
    const uint64_t highest = 1000 + offset;
    ++offset;
    if (row.histogram != nullptr) {
      EXPECT_EQ(row.histogram(snapshot, i).count, 2u);
      EXPECT_EQ(row.histogram(snapshot, i).sum_nanos,
                static_cast<int64_t>(sum));
      EXPECT_EQ(row.histogram(gone_snapshot, i).count, 2u);
      return;
    }
    switch (row.kind) {
      case CounterKind::kCumulative:
        EXPECT_EQ(row.value(snapshot, i), sum);
        EXPECT_EQ(row.value(gone_snapshot, i), sum);
        break;
      case CounterKind::kInstant:
        EXPECT_EQ(row.value(snapshot, i), sum);
        EXPECT_EQ(row.value(gone_snapshot, i), 0u);
        break;
      case CounterKind::kPeak:
        EXPECT_EQ(row.value(snapshot, i), highest);
        EXPECT_EQ(row.value(gone_snapshot, i), 0u);
        break;
    }
  });
  EXPECT_GT(offset, 300u);
}

TEST(CounterTableTest, WhatHappenedSinceIsTheDifferenceOfEachCounter) {
  const VcpuStatsSnapshot earlier = Filled(1).vcpus;
  VcpuStatsSnapshot now = earlier;
  now.Add(earlier);
  now.Add(earlier);
  const VcpuStatsSnapshot since = now.Since(earlier);
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    row.ForEach([&](const CounterIndex& i) {
      if (row.histogram != nullptr) {
        EXPECT_EQ(row.histogram(since, i).count, 2u) << row.name;
      } else {
        EXPECT_EQ(row.value(since, i), 2 * row.value(earlier, i)) << row.name;
      }
    });
  }
}

TEST(CounterTableTest, ARowIsFoundByItsMember) {
  std::vector<std::string> found;
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    if (row.IsOf(&VcpuStatsSnapshot::dirty_pages)) {
      found.emplace_back(row.name);
    }
  }
  EXPECT_THAT(found, ElementsAre("dirty_pages"));
}

TEST(CounterTableTest, AValueIsNamedByTheLabelsOfItsRow) {
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    if (row.name != "stall") continue;
    EXPECT_EQ(row.NameAt({static_cast<int>(StallCause::kRingFull)}),
              "stall_ring_full");
    int values = 0;
    row.ForEach([&values](const CounterIndex&) { ++values; });
    EXPECT_EQ(values, kStallCauses);
    return;
  }
  FAIL() << "there is no row for stalls";
}

}  // namespace
}  // namespace mmu
