#include "mmu_core/stats/vcpu_stats.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_counters.h"
#include "mmu_core/testing/fake_clock.h"

namespace mmu {
namespace {

// Adds a different number to each counter.
void BumpAll(VcpuStats& stats, int64_t first) {
  for (OwnedCounter* counter :
       {&stats.pf_mmio_spte_created, &stats.pf_guest, &stats.tlb_flush,
        &stats.invlpg, &stats.accesses, &stats.writes, &stats.dirty_pages,
        &stats.dirty_log_faults, &stats.ring_full_exits}) {
    counter->Add(first++);
  }
  for (const StallCause cause : {StallCause::kWriteProtect, StallCause::kSplit,
                                 StallCause::kLock, StallCause::kFlush}) {
    stats.AddStall(cause, first++);
  }
}

// Expects in each number `times` times what BumpAll(first) adds.
void ExpectAll(const VcpuStatsSnapshot& s, uint64_t first, uint64_t times) {
  for (const uint64_t number :
       {s.pf_mmio_spte_created, s.pf_guest, s.tlb_flush, s.invlpg, s.accesses,
        s.writes, s.dirty_pages, s.dirty_log_faults, s.ring_full_exits}) {
    EXPECT_EQ(number, times * first++);
  }
  for (int cause = 0; cause < 4; ++cause) {
    EXPECT_EQ(s.stall_nanos[cause], times * first++);
  }
  EXPECT_EQ(s.stall_nanos[static_cast<int>(StallCause::kRingFull)], 0u);
}

TEST(VcpuStatsTest, ASnapshotHasEachCounterUnderItsOwnName) {
  VcpuStats stats;
  ExpectAll(stats.Snapshot(), 0, 0);
  BumpAll(stats, 1000);
  ExpectAll(stats.Snapshot(), 1000, 1);
  EXPECT_EQ(stats.StallNanos(), 1009 + 1010 + 1011 + 1012);
}

TEST(VcpuStatsTest, EveryFaultIsTakenAndCountedInOnePlaceOnly) {
  VcpuStats stats;
  using Path = VcpuStats::FaultPath;
  const auto count = [&stats](FaultResult result, AccessKind kind, Path path,
                              int n) {
    for (int i = 0; i < n; ++i) {
      stats.CountFault(i % 2 == 0 ? MmuKind::kTdp : MmuKind::kShadow, result,
                       kind, path);
    }
  };
  count(FaultResult::kFixed, AccessKind::kRead, Path::kSlow, 1);
  count(FaultResult::kFixed, AccessKind::kWrite, Path::kSlow, 2);
  count(FaultResult::kFixed, AccessKind::kWrite, Path::kFast, 4);
  count(FaultResult::kSpurious, AccessKind::kWrite, Path::kFast, 8);
  count(FaultResult::kSpurious, AccessKind::kWrite, Path::kSlow, 16);
  count(FaultResult::kEmulate, AccessKind::kExec, Path::kSlow, 32);
  count(FaultResult::kRetry, AccessKind::kWrite, Path::kSlow, 64);
  for (int i = 0; i < 128; ++i) {
    stats.CountFaultError(MmuKind::kTdp, AccessKind::kExec);
  }
  const VcpuStatsSnapshot s = stats.Snapshot();
  EXPECT_EQ(s.pf_fixed, 7u);
  EXPECT_EQ(s.pf_fast, 12u);
  EXPECT_EQ(s.pf_spurious, 24u);
  EXPECT_EQ(s.pf_emulate, 32u);
  EXPECT_EQ(s.pf_retried, 64u);
  EXPECT_EQ(s.fault_errors, 128u);
  EXPECT_EQ(s.pf_taken, 255u);
  uint64_t disjoint = 0;
  for (int r = 0; r < kFaultResults; ++r) {
    for (int k = 0; k < kAccessKinds; ++k) {
      disjoint += s.faults[r][k];
      EXPECT_LE(s.slow_faults[r][k], s.faults[r][k]);
    }
  }
  EXPECT_EQ(disjoint, 127u);
  EXPECT_EQ(s.slow_faults[static_cast<int>(FaultResult::kFixed)]
                         [static_cast<int>(AccessKind::kWrite)],
            2u);
}

TEST(VcpuStatsTest, APageFaultIsCountedForItsMmuUnderOneOutcome) {
  VcpuStats stats;
  using Path = VcpuStats::FaultPath;
  constexpr auto kWrite = AccessKind::kWrite;
  stats.CountFault(MmuKind::kTdp, FaultResult::kFixed, kWrite, Path::kSlow);
  stats.CountFault(MmuKind::kTdp, FaultResult::kFixed, kWrite, Path::kFast);
  stats.CountFault(MmuKind::kShadow, FaultResult::kSpurious, kWrite,
                   Path::kFast);
  stats.CountFault(MmuKind::kShadow, FaultResult::kSpurious, kWrite,
                   Path::kSlow);
  stats.CountFault(MmuKind::kShadow, FaultResult::kEmulate, kWrite,
                   Path::kSlow);
  stats.CountFault(MmuKind::kShadow, FaultResult::kWriteProtected, kWrite,
                   Path::kSlow);
  stats.CountFault(MmuKind::kTdp, FaultResult::kRetry, kWrite, Path::kSlow);
  stats.CountFaultError(MmuKind::kShadow, AccessKind::kRead);
  const VcpuStatsSnapshot s = stats.Snapshot();
  const auto counts_of = [&s](MmuKind mmu, AccessKind kind) {
    std::map<std::string, uint64_t> counts;
    for (int o = 0; o < kFaultOutcomes; ++o) {
      const uint64_t count =
          s.page_faults[static_cast<int>(mmu)][o][static_cast<int>(kind)];
      if (count == 0) continue;
      counts.emplace(ToString(static_cast<FaultOutcome>(o)), count);
    }
    return counts;
  };
  using Counts = std::map<std::string, uint64_t>;
  EXPECT_EQ(counts_of(MmuKind::kTdp, kWrite),
            (Counts{{"fixed", 1}, {"fast", 1}, {"retry", 1}}));
  EXPECT_EQ(counts_of(MmuKind::kShadow, kWrite),
            (Counts{{"spurious", 2}, {"emulate", 2}}));
  EXPECT_EQ(counts_of(MmuKind::kShadow, AccessKind::kRead),
            (Counts{{"error", 1}}));
  EXPECT_EQ(s.pf_taken, 8u);
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

TEST(WaitTimeTest, AWaitIsSeenWhileItLastsAndStaysAfterwards) {
  FakeClock clock;
  WaitTime wait(clock);
  EXPECT_FALSE(wait.waiting());
  EXPECT_FALSE(wait.since().has_value());
  EXPECT_EQ(wait.nanos(), 0);
  wait.Begin();
  EXPECT_TRUE(wait.waiting());
  const MonotonicTime begin = MonotonicTime::FromNanos(clock.NowNanos());
  EXPECT_EQ(wait.since(), begin);
  EXPECT_EQ(wait.nanos(), 0);
  clock.Advance(30);
  EXPECT_EQ(wait.nanos(), 30) << "it still waits";
  clock.Advance(12);
  EXPECT_EQ(wait.since(), begin);
  wait.End();
  clock.Advance(1000);
  EXPECT_FALSE(wait.waiting());
  EXPECT_FALSE(wait.since().has_value());
  EXPECT_EQ(wait.nanos(), 42);
  {
    const WaitTime::Scope again(wait);
    clock.Advance(8);
    EXPECT_EQ(wait.nanos(), 50);
  }
  EXPECT_EQ(wait.nanos(), 50);
}

TEST(WaitTimeTest, NobodyEverSeesItShrink) {
  WaitTime wait;
  std::atomic<bool> done{false};
  std::thread owner([&] {
    for (int i = 0; i < 20000; ++i) const WaitTime::Scope scope(wait);
    done = true;
  });
  int64_t last = 0;
  while (!done) {
    const int64_t now = wait.nanos();
    ASSERT_GE(now, last);
    last = now;
  }
  owner.join();
  EXPECT_GE(wait.nanos(), last);
}

TEST(VcpuStatsTest, AWaitForRoomIsAStallFromItsFirstMomentOn) {
  VcpuStats stats;
  const auto ring_full = [&stats] {
    return stats.Snapshot()
        .stall_nanos[static_cast<int>(StallCause::kRingFull)];
  };
  stats.ring_full_wait.Begin();
  while (ring_full() == 0) std::this_thread::yield();
  EXPECT_GT(stats.StallNanos(), 0);
  stats.ring_full_wait.End();
  EXPECT_EQ(stats.StallNanos(), ring_full());
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
