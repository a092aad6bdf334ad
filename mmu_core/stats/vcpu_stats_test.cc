#include "mmu_core/stats/vcpu_stats.h"

#include <cstdint>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

// Adds a different number to each counter.
void BumpAll(VcpuStats& stats, int64_t first) {
  for (OwnedCounter* counter :
       {&stats.pf_fast, &stats.pf_mmio_spte_created, &stats.pf_guest,
        &stats.tlb_flush, &stats.invlpg, &stats.accesses, &stats.writes,
        &stats.dirty_pages, &stats.ring_full_exits, &stats.fault_errors}) {
    counter->Add(first++);
  }
  for (auto& by_kind : stats.faults) {
    for (OwnedCounter& counter : by_kind) counter.Add(first++);
  }
  for (OwnedCounter& counter : stats.stall_nanos) counter.Add(first++);
}

// That each number is what BumpAll(first) adds, times `times`.
void ExpectAll(const VcpuStatsSnapshot& s, uint64_t first, uint64_t times) {
  for (const uint64_t number :
       {s.pf_fast, s.pf_mmio_spte_created, s.pf_guest, s.tlb_flush, s.invlpg,
        s.accesses, s.writes, s.dirty_pages, s.ring_full_exits,
        s.fault_errors}) {
    EXPECT_EQ(number, times * first++);
  }
  for (const auto& by_kind : s.faults) {
    for (const uint64_t number : by_kind) EXPECT_EQ(number, times * first++);
  }
  for (const int64_t number : s.stall_nanos) {
    EXPECT_EQ(number, static_cast<int64_t>(times * first++));
  }
}

TEST(VcpuStatsTest, ASnapshotHasEachCounterUnderItsOwnName) {
  VcpuStats stats;
  ExpectAll(stats.Snapshot(), 0, 0);
  BumpAll(stats, 1000);
  ExpectAll(stats.Snapshot(), 1000, 1);
}

TEST(VcpuStatsTest, EveryFaultIsTakenAndItsResultIsCounted) {
  VcpuStats stats;
  const auto count = [&stats](FaultResult result, AccessKind kind, int64_t n) {
    stats.faults[static_cast<int>(result)][static_cast<int>(kind)].Add(n);
  };
  count(FaultResult::kFixed, AccessKind::kRead, 1);
  count(FaultResult::kFixed, AccessKind::kWrite, 20);
  count(FaultResult::kEmulate, AccessKind::kExec, 300);
  count(FaultResult::kSpurious, AccessKind::kWrite, 4'000);
  count(FaultResult::kRetry, AccessKind::kWrite, 50'000);
  stats.fault_errors.Add(600'000);
  const VcpuStatsSnapshot s = stats.Snapshot();
  EXPECT_EQ(s.pf_fixed, 21u);
  EXPECT_EQ(s.pf_emulate, 300u);
  EXPECT_EQ(s.pf_spurious, 4'000u);
  EXPECT_EQ(s.pf_retried, 50'000u);
  EXPECT_EQ(s.pf_taken, 654'321u);
}

TEST(VcpuStatsTest, SnapshotsAddUpAndTellWhatHappenedSinceAnEarlierOne) {
  VcpuStats stats;
  BumpAll(stats, 7);
  const VcpuStatsSnapshot earlier = stats.Snapshot();
  BumpAll(stats, 7);
  BumpAll(stats, 7);
  ExpectAll(stats.Snapshot().Since(earlier), 7, 2);
  VcpuStatsSnapshot sum = earlier;
  sum.Add(stats.Snapshot());
  ExpectAll(sum, 7, 4);
}

TEST(VcpuStatsTest, LatenciesAreAddedAndSubtractedToo) {
  VcpuStats stats;
  stats.fault_fast.Record(500);
  stats.fault_slow.Record(3000, 16);
  const VcpuStatsSnapshot earlier = stats.Snapshot();
  stats.fault_fast.Record(700);
  stats.fault_slow.Record(5000, 16);
  const VcpuStatsSnapshot since = stats.Snapshot().Since(earlier);
  EXPECT_EQ(since.fault_fast.count, 1u);
  EXPECT_EQ(since.fault_fast.sum_nanos, 700);
  EXPECT_EQ(since.fault_fast.counts()[0], 1u);
  EXPECT_EQ(since.fault_slow.count, 16u);
  EXPECT_EQ(since.fault_slow.sum_nanos, 16 * 5000);
  VcpuStatsSnapshot sum = earlier;
  sum.Add(since);
  EXPECT_EQ(sum.fault_fast.count, 2u);
  EXPECT_EQ(sum.fault_slow.sum_nanos, 16 * 8000);
}

TEST(OwnedCounterTest, OneThreadAddsWhileAnotherReadsNeverLess) {
  OwnedCounter counter;
  std::thread owner([&counter] {
    for (int i = 0; i < 100000; ++i) counter.Add();
    counter.Add(-5);
    counter.Add(5);
  });
  int64_t last = 0;
  while (last < 99995) {
    const int64_t now = counter.Get();
    ASSERT_GE(now, last - 5);
    last = now;
  }
  owner.join();
  EXPECT_EQ(counter.Get(), 100000);
}

}  // namespace
}  // namespace mmu
