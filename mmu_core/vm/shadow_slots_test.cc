// Operations on a memslot, or on a part of it, when L1 maps its pages through
// the TDP MMU and L2 maps the same pages through the shadow MMU.

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <ostream>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_waiters.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/age_pages.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/slots/host_notifier.h"

namespace mmu::testing {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint64_t kBytes = 64 * kMiB;
constexpr uint64_t kL2Bytes = 4 * kMiB;

struct Host {
  const char* name;
  VmConfig::Pml pml = VmConfig::Pml::kNo;
  EntryFormat format = EntryFormat::kEpt;

  friend std::ostream& operator<<(std::ostream& os, const Host& host) {
    return os << host.name;
  }
};

// A VM whose L1 gives L2 memory in pages of 2 MiB, as the host does for L1.
class NestedVm {
 public:
  explicit NestedVm(const Host& host,
                    VmConfig::SlotZap slot_zap = VmConfig::SlotZap::kAll)
      : vm_(Make(host, slot_zap)),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        l1_(cpu_, vm_->GuestSpace(),
            {.tables = host.format == EntryFormat::kEpt ? GuestTables::kEpt
                                                        : GuestTables::kNpt,
             .max_page = Level::k2M}) {
    EXPECT_TRUE(l1_.Boot().ok());
  }

  Vm& vm() { return *vm_; }
  VmState& state() { return vm_->state(); }
  L1Hypervisor& l1() { return l1_; }

  void WriteL2(uint64_t nested, uint64_t word) {
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kWrite, &word).ok());
  }
  uint64_t ReadL2(uint64_t nested) {
    uint64_t word = 0;
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kRead, &word).ok());
    return word;
  }
  void ExecL2(uint64_t nested) {
    uint64_t word = 0;
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kExec, &word).ok());
  }
  // Maps all of L2's memory writable.
  void WriteAllOfL2() {
    for (uint64_t nested = 0; nested < kL2Bytes; nested += 2 * kMiB) {
      WriteL2(nested, 1);
    }
  }
  uint64_t FrameOf(uint64_t nested) {
    return l1_.FrameOf(Gpa(nested)).value().value();
  }
  // The number of SPTEs of the shadow MMU that map `gfn` at `level`.
  uint64_t ShadowLeafsOf(uint64_t gfn, Level level) {
    MmuWriteLocked lock(state().mmu_lock, LockOp::kAge);
    RcuReadGuard rcu;
    const Memslot& slot = SlotOf(*vm_, Gfn(gfn));
    return slot.shadow_rmaps()->Head(Gfn(gfn), level).Count(lock);
  }

 private:
  static std::unique_ptr<Vm> Make(const Host& host,
                                  VmConfig::SlotZap slot_zap) {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.format = host.format;
    config.pml = host.pml;
    config.slot_zap = slot_zap;
    config.memslots = {Slot(0, 0, kBytes, Level::k2M)};
    return MakeVmFrom(config);
  }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
};

class ShadowSlotsTest : public ::testing::TestWithParam<Host> {
 protected:
  ShadowSlotsTest() : nested_(GetParam()), vm_(nested_.vm()) {
    nested_.WriteAllOfL2();
  }
  ~ShadowSlotsTest() override { EXPECT_EQ(AuditFindings(vm_), ""); }

  void StartLog(InitiallySet initially_set, SplitPolicy split) {
    DirtyLogConfig config;
    config.initially_set = initially_set;
    config.split = split;
    ASSERT_TRUE(testing::StartLog(vm_, config, nullptr).ok());
  }
  // Seals and clears all dirty pages.
  void ClearAll() {
    uint64_t epoch = 0;
    const std::vector<uint64_t> pages = SealAndList(vm_, 0, &epoch);
    const uint64_t count = kBytes >> kPageShift;
    ASSERT_TRUE(
        ClearAndDeliver(vm_, 0, epoch, 0, count, MaskOf(count, pages), nullptr)
            .ok());
  }
  // L2 writes to the page. Returns whether the log has the write.
  bool WriteIsLogged(uint64_t nested) {
    nested_.WriteL2(nested, 77);
    const std::vector<uint64_t> pages = SealAndList(vm_, 0);
    return std::count(pages.begin(), pages.end(), nested_.FrameOf(nested)) == 1;
  }

  NestedVm nested_;
  Vm& vm_;
};

TEST_P(ShadowSlotsTest, EachMmuCountsWhatItDidAndOneFlushOfBothIsOne) {
  constexpr auto kTdp = static_cast<int>(MmuKind::kTdp);
  constexpr auto kShadow = static_cast<int>(MmuKind::kShadow);
  constexpr auto kEager = static_cast<int>(SplitTrigger::kEager);
  Write(vm_, 40 * kMiB);  // L1 writes where it keeps nothing
  const VmStatsSnapshot before = vm_.Stats();
  for (const int mmu : {kTdp, kShadow}) {
    uint64_t faults = 0;
    for (const auto& by_access : before.vcpus.page_faults[mmu]) {
      faults +=
          std::accumulate(by_access.begin(), by_access.end(), uint64_t{0});
    }
    EXPECT_GT(faults, 0u) << mmu;
    EXPECT_GT(before.mmus[mmu].leafs[1], 0u) << mmu;
  }
  EXPECT_EQ(before.mmus[kShadow].leafs[1], kL2Bytes / (2 * kMiB));
  EXPECT_EQ(before.pages_2m,
            before.mmus[kTdp].leafs[1] + before.mmus[kShadow].leafs[1]);
  EXPECT_GT(before.mmus[kTdp].tables, 0u);
  EXPECT_EQ(before.mmus[kShadow].tables, 0u) << "it has shadow pages";

  StartLog(InitiallySet::kNo, SplitPolicy::kEager);
  const VmStatsSnapshot after = vm_.Stats();
  EXPECT_EQ(after.mmus[kTdp].splits[0][kEager], before.mmus[kTdp].leafs[1]);
  EXPECT_EQ(after.mmus[kShadow].splits[0][kEager],
            before.mmus[kShadow].leafs[1]);
  const auto protects = [&](int mmu) {
    const auto of = [mmu](const VmStatsSnapshot& stats) {
      return stats.flush.flushes[mmu][static_cast<int>(FlushScope::kRange)]
                                [static_cast<int>(FlushReason::kWriteProtect)];
    };
    return of(after) - of(before);
  };
  EXPECT_EQ(protects(kTdp), 1u) << "which L1 runs on";
  EXPECT_EQ(protects(kShadow), 0u);

  const AgeResult aged = vm_.Age(GfnRange{Gfn(0), Gfn(kBytes >> kPageShift)},
                                 AgeMode::kTest, nullptr)
                             .value();
  const VmStatsSnapshot now = vm_.Stats();
  EXPECT_THAT(now.mmus[kTdp].aged[static_cast<int>(AgingLock::kRmap)],
              ElementsAre(aged.young_page_count, aged.old_page_count));
  EXPECT_GT(aged.young_page_count, 0u);
  EXPECT_THAT(now.mmus[kTdp].aged[static_cast<int>(AgingLock::kNone)], Each(0));
  EXPECT_THAT(now.mmus[kShadow].aged, Each(Each(0)));
}

// Covers: SHD-70, DL-02
TEST_P(ShadowSlotsTest, LoggingSplitsAndProtectsWhatL2Maps) {
  const uint64_t gfn = nested_.FrameOf(2 * kMiB);
  ASSERT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 1u);
  StartLog(InitiallySet::kNo, SplitPolicy::kEager);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 0u);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 1u);
  EXPECT_THAT(SealAndList(vm_, 0), IsEmpty());
  EXPECT_TRUE(WriteIsLogged(2 * kMiB));
  EXPECT_TRUE(WriteIsLogged(3 * kMiB));
  ClearAll();
  EXPECT_TRUE(WriteIsLogged(3 * kMiB)) << "protected again";
}

TEST_P(ShadowSlotsTest, WithoutASplitHugePagesOfL2AreProtected) {
  StartLog(InitiallySet::kNo, SplitPolicy::kNone);
  EXPECT_EQ(nested_.ShadowLeafsOf(nested_.FrameOf(0), Level::k2M), 1u);
  EXPECT_TRUE(WriteIsLogged(5 * kPageSize));
  EXPECT_TRUE(WriteIsLogged(6 * kPageSize));
}

// Covers: DL-15
TEST_P(ShadowSlotsTest, TheFirstClearSplitsOrProtectsWhatL2MapsHuge) {
  for (const SplitPolicy split : {SplitPolicy::kOnClear, SplitPolicy::kNone}) {
    nested_.WriteAllOfL2();
    StartLog(InitiallySet::kYes, split);
    ClearAll();
    EXPECT_TRUE(WriteIsLogged(2 * kMiB));
    EXPECT_TRUE(WriteIsLogged(kL2Bytes - kPageSize));
    ASSERT_TRUE(
        StopLog(vm_, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  }
}

// A clear drops mmu_lock for each page that it splits. Another thread takes the
// lock each time.
// Covers: DL-27
TEST_P(ShadowSlotsTest, AClearThatIsInterruptedBySplitsLosesNoPage) {
  StartLog(InitiallySet::kYes, SplitPolicy::kOnClear);
  LockWaiters waiters(nested_.state().mmu_lock, /*most=*/50);
  ClearAll();
  waiters.Join();
  EXPECT_GT(waiters.count(), 2u);
  EXPECT_EQ(nested_.ShadowLeafsOf(nested_.FrameOf(0), Level::k2M), 0u);
  for (uint64_t nested = 0; nested < kL2Bytes; nested += 16 * kPageSize) {
    ASSERT_TRUE(WriteIsLogged(nested)) << nested;
  }
}

// Covers: SHD-82, DL-06
TEST_P(ShadowSlotsTest, WithTheEndOfALogL2FaultsItsHugePagesBackIn) {
  const uint64_t gfn = nested_.FrameOf(0);
  StartLog(InitiallySet::kNo, SplitPolicy::kEager);
  ASSERT_TRUE(
      StopLog(vm_, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 0u);
  nested_.WriteAllOfL2();
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 1u);
}

TEST_P(ShadowSlotsTest, RecoveringOnRequestIncludesL2) {
  const uint64_t gfn = nested_.FrameOf(0);
  StartLog(InitiallySet::kNo, SplitPolicy::kEager);
  ASSERT_TRUE(
      StopLog(vm_, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 1u);
  ASSERT_TRUE(vm_.RecoverHugePages({}, nullptr).ok());
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 0u);
}

TEST_P(ShadowSlotsTest, ASplitJobIncludesL2) {
  const uint64_t gfn = nested_.FrameOf(0);
  auto job = SplitJob::Create(vm_.state(), {});
  ASSERT_TRUE(job.ok());
  ASSERT_TRUE((*job)->Run().ok());
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 0u);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 1u);
  EXPECT_EQ(nested_.ReadL2(0), 1u);
}

// An invalidation drops the lock before every step. Meanwhile a split job
// splits the pages that L2 maps.
// Covers: PF-27, TST-50
TEST_P(ShadowSlotsTest, Race47ASplitInTheGapsOfAnInvalidationLeavesNothing) {
  const StillHoldClock still;
  const uint64_t frames[] = {nested_.FrameOf(0), nested_.FrameOf(2 * kMiB)};
  // The range begins at the lower of the two pages. When the walk over the
  // small rmaps first drops the lock, it has passed the rmaps of this page.
  const HvaRange range = [&] {
    RcuReadGuard rcu;
    const Hva hva = SlotOf(vm_, Gfn(0)).hva;
    return HvaRange{hva + std::min(frames[0], frames[1]) * kPageSize,
                    hva + kBytes};
  }();
  Interleaving threads;
  threads.Add("host", [&] {
    InvalidateRangeStart(vm_.state(), range, MayYield::kYes);
  });
  threads.Add("split", [&] {
    auto job = SplitJob::Create(vm_.state(), {});
    ASSERT_TRUE(job.ok());
    ASSERT_TRUE((*job)->Run().ok());
  });
  threads.RunTo("host", HookPoint::kWriteLocked);
  threads.Start("split");
  Await("a thread waits for mmu_lock",
        [&] { return vm_.state().mmu_lock.IsContended(); });
  threads.RunToEnd("host");
  threads.WaitForEnd("split");
  for (const uint64_t frame : frames) {
    EXPECT_EQ(nested_.ShadowLeafsOf(frame, Level::k2M), 0u);
    for (uint64_t gfn = frame; gfn < frame + k2MPages; gfn += 73) {
      EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 0u);
    }
  }
  InvalidateRangeEnd(vm_.state(), range);
}

// The split has found the huge SPTE and dropped the lock when L1 removes its
// entry. The split must handle the removed SPTE, and must still split L1's
// other entry.
// Covers: SHD-74
TEST_P(ShadowSlotsTest, Race39L1ChangesItsEntryWhileASplitIsOffTheLock) {
  // The split begins with the lower of the two frames.
  const bool first = nested_.FrameOf(0) < nested_.FrameOf(2 * kMiB);
  const uint64_t gone_at = first ? 0 : 2 * kMiB;
  const uint64_t stays_at = 2 * kMiB - gone_at;
  const uint64_t gone = nested_.FrameOf(gone_at);
  const uint64_t stays = nested_.FrameOf(stays_at);
  Interleaving threads;
  threads.Add("split",
              [&] { StartLog(InitiallySet::kNo, SplitPolicy::kEager); });
  threads.Add("L1", [&] {
    EXPECT_TRUE(nested_.l1().Unmap(Gpa(gone_at), 2 * kMiB).ok());
  });
  threads.RunTo("split", HookPoint::kTopUp);
  EXPECT_EQ(nested_.ShadowLeafsOf(gone, Level::k2M), 1u);
  threads.RunToEnd("L1");
  EXPECT_EQ(nested_.ShadowLeafsOf(gone, Level::k2M), 0u);
  threads.RunToEnd("split");
  EXPECT_EQ(nested_.ShadowLeafsOf(gone, Level::k4K), 0u);
  EXPECT_EQ(nested_.ShadowLeafsOf(stays, Level::k4K), 1u);
  EXPECT_EQ(nested_.ReadL2(gone_at), 0u);
  EXPECT_EQ(nested_.ReadL2(stays_at), 1u);
}

// L1 removes its entry after the split: the link to the small pages goes with
// it.
TEST_P(ShadowSlotsTest, L1TakesAwayWhatWasSplit) {
  StartLog(InitiallySet::kNo, SplitPolicy::kEager);
  ASSERT_EQ(nested_.ShadowLeafsOf(nested_.FrameOf(0), Level::k4K), 1u);
  ASSERT_TRUE(nested_.l1().Unmap(Gpa(0), 2 * kMiB).ok());
  EXPECT_EQ(nested_.ReadL2(0), 0u);
  EXPECT_EQ(nested_.ReadL2(kPageSize), 0u);
  EXPECT_EQ(nested_.ReadL2(2 * kMiB), 1u);
}

// Covers: STAT-11
TEST_P(ShadowSlotsTest, TheMappingsOfBothMmusAreCountedBySize) {
  // Each MMU maps a page of 4 KiB, and one of 2 MiB that the log leaves.
  const uint64_t gfn = nested_.FrameOf(0);
  Read(vm_, kBytes - 4 * kMiB);
  StartLog(InitiallySet::kNo, SplitPolicy::kNone);
  nested_.WriteL2(0, 2);
  Write(vm_, kBytes - kPageSize);
  ASSERT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 1u);
  ASSERT_EQ(LevelOf(nested_.state(), Gfn(kBytes / kPageSize - 1)), Level::k4K);

  std::map<Level, uint64_t> tdp;
  for (const Mapping& mapping : AllMappings(nested_.state())) {
    ++tdp[mapping.level];
  }
  std::map<Level, uint64_t> shadow;
  const ShadowPageSet& pages = nested_.state().shadow->pages().set();
  for (const ShadowPageState* page = pages.active().newest(); page != nullptr;
       page = page->older) {
    for (int i = 0; i < kEntriesPerTable; ++i) {
      if (page->EntryAt(i).Load().IsPresentLeaf(page->level())) {
        ++shadow[page->level()];
      }
    }
  }
  for (const Level level : {Level::k4K, Level::k2M}) {
    EXPECT_GT(tdp[level], 0u);
    EXPECT_GT(shadow[level], 0u);
  }
  const VmStatsSnapshot stats = vm_.Stats();
  EXPECT_EQ(stats.pages_4k, tdp[Level::k4K] + shadow[Level::k4K]);
  EXPECT_EQ(stats.pages_2m, tdp[Level::k2M] + shadow[Level::k2M]);
  EXPECT_EQ(stats.pages_1g, 0u);
  {
    MutexLock lock(nested_.state().slots.slots_lock);
    nested_.state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  EXPECT_EQ(vm_.Stats().pages_4k + vm_.Stats().pages_2m, 0u);
}

// L1 maps a page of 2 MiB, and so could the host. It is mapped small while L2
// executes from it. NX recovery makes the huge page possible again.
// Covers: SPTE-51, SPTE-52, SPTE-53, SPTE-54
TEST_P(ShadowSlotsTest, WhatL2ExecutesIsSmallListedAndRecovered) {
  NxHugePages& nx = nested_.state().nx_huge_pages;
  nx.SetMitigated(true);
  {
    MutexLock lock(nested_.state().slots.slots_lock);
    nested_.state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  const uint64_t gfn = nested_.FrameOf(0);
  nested_.ReadL2(0);
  ASSERT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 1u);
  EXPECT_EQ(nx.count(), 0u);
  nested_.ExecL2(0);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 1u);
  EXPECT_EQ(nx.of(MmuKind::kShadow).count(), 1u);
  EXPECT_EQ(vm_.Stats().nx_lpage_splits, 1u);
  nested_.ReadL2(kPageSize);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 0u) << "a read near by";
  EXPECT_EQ(AuditFindings(vm_), "");

  EXPECT_EQ(RecoverNxHugePages(nested_.state(), 1), 1u);
  EXPECT_EQ(vm_.Stats().nx_lpage_splits, 0u);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k4K), 0u);
  EXPECT_EQ(nested_.ReadL2(0), 1u);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 1u);
}

// Recovery counts the huge pages that the log has split, those of L1 and those
// of L2.
// Covers: SHD-82
TEST_P(ShadowSlotsTest, RecoveryCountsTheHugePagesOfBothMmus) {
  const auto log_and_stop = [&](RecoverOnStop recover) {
    StartLog(InitiallySet::kNo, SplitPolicy::kEager);
    return StopLog(vm_, recover, Undelivered::kDiscard, nullptr).value();
  };
  Write(vm_, 40 * kMiB);  // L1 writes where it keeps nothing
  const uint64_t before = vm_.Stats().recoveries[0];
  log_and_stop(RecoverOnStop::kNo);
  const RecoverOutcome recovered = vm_.RecoverHugePages({}, nullptr).value();
  EXPECT_EQ(recovered.to_2m_count, kL2Bytes / (2 * kMiB) + 1);
  EXPECT_EQ(recovered.to_1g_count, 0u);
  EXPECT_EQ(vm_.Stats().recoveries[0] - before, recovered.to_2m_count);
  EXPECT_EQ(vm_.RecoverHugePages({}, nullptr)->to_2m_count, 0u);

  nested_.WriteAllOfL2();
  EXPECT_EQ(log_and_stop(RecoverOnStop::kYes).recovered_2m_count,
            recovered.to_2m_count);
}

// L1 and L2 have used the page. The shadow MMU is aged even if the TDP MMU
// found the page young. Otherwise the next ageing would find the shadow MMU's
// Accessed bit.
// Covers: AGE-10, AGE-11
TEST_P(ShadowSlotsTest, AgeingTakesTheBitsOfBothMmus) {
  const uint64_t gfn = nested_.FrameOf(0);
  const GfnRange page = GfnRange::Of(Gfn(gfn), 1);
  Read(vm_, gfn << kPageShift);
  nested_.ReadL2(0);
  const auto age = [&](AgeMode mode) {
    return vm_.Age(page, mode, nullptr).value();
  };
  AgeResult result = age(AgeMode::kTestAndClear);
  EXPECT_EQ(result.young_page_count, 1u);
  EXPECT_EQ(result.old_page_count, 0u);
  result = age(AgeMode::kTestAndClear);
  EXPECT_EQ(result.young_page_count, 0u) << "nobody used it since";
  EXPECT_EQ(result.old_page_count, 1u) << "one page, though mapped twice";
  EXPECT_THAT(result.young, ElementsAre(0));
}

// The page is young in one MMU, in the other, in both or in neither. A test may
// stop at the first MMU that finds it young. So the answer does not depend on
// which MMU that is, and the test changes no MMU's bit.
// Covers: AGE-12
TEST_P(ShadowSlotsTest, ATestOfYoungIsTheSameInAnyOrderOfTheMmus) {
  VmState& state = nested_.state();
  const uint64_t gfn = nested_.FrameOf(0);
  const GfnRange page = GfnRange::Of(Gfn(gfn), 1);
  HvaRange hvas;
  {
    RcuReadGuard rcu;
    const Memslot& slot = SlotOf(vm_, Gfn(gfn));
    hvas = {slot.HvaOf(Gfn(gfn)), slot.HvaOf(Gfn(gfn)) + kPageSize};
  }
  for (const bool l1_uses : {false, true}) {
    for (const bool l2_uses : {false, true}) {
      SCOPED_TRACE(::testing::Message() << l1_uses << l2_uses);
      AgePages(state, 0, page, AgeMode::kTestAndClear, AgeOptions{}, nullptr);
      state.vcpus[0]->ReleaseRoot();  // empties the vCPU's TLB
      if (l1_uses) Read(vm_, gfn << kPageShift);
      if (l2_uses) nested_.ReadL2(0);
      for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(TestYoung(state, hvas).young, l1_uses || l2_uses);
      }
      // Takes the bit of the TDP MMU only, and leaves that of the shadow MMU.
      AgeResult tdp_only = AgeResult::For(page);
      state.tdp.Age(0, page, AgeMode::kTestAndClear, AgeScan::kAllLeafs,
                    tdp_only, nullptr);
      EXPECT_EQ(tdp_only.young_page_count, l1_uses ? 1u : 0u);
      EXPECT_EQ(TestYoung(state, hvas).young, l2_uses);
      EXPECT_EQ(ClearYoung(state, hvas).young, l2_uses);
      EXPECT_FALSE(TestYoung(state, hvas).young);
    }
  }
}

TEST_P(ShadowSlotsTest, AnInvalidationUnmapsThePageInBothMmus) {
  const uint64_t gfn = nested_.FrameOf(0);
  Read(vm_, gfn << kPageShift);
  HvaRange hvas;
  {
    RcuReadGuard rcu;
    const Memslot& slot = SlotOf(vm_, Gfn(gfn));
    hvas = {slot.HvaOf(Gfn(gfn)), slot.HvaOf(Gfn(gfn)) + 2 * kMiB};
  }
  InvalidateRangeStart(nested_.state(), hvas, MayYield::kYes);
  EXPECT_FALSE(SpteOf(nested_.state(), Gfn(gfn)).IsPresent());
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 0u);
  InvalidateRangeEnd(nested_.state(), hvas);
  EXPECT_EQ(nested_.ReadL2(0), 1u);
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 1u);
  ZapGfnRange(nested_.state(), 0, GfnRange::Of(Gfn(gfn), 1));
  EXPECT_EQ(nested_.ShadowLeafsOf(gfn, Level::k2M), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Hosts, ShadowSlotsTest,
    ::testing::Values(Host{"Ept"},
                      Host{.name = "EptWithPml", .pml = VmConfig::Pml::kYes},
                      Host{.name = "Npt", .format = EntryFormat::kNpt}),
    [](const auto& p) { return std::string(p.param.name); });

// Covers: SLOT-28
TEST(ShadowSlotZapTest, ASlotThatGoesTakesItsMappingsAndTablesAlong) {
  for (const VmConfig::SlotZap zap :
       {VmConfig::SlotZap::kSlot, VmConfig::SlotZap::kAll}) {
    NestedVm nested(Host{"Ept"}, zap);
    nested.WriteAllOfL2();
    const ShadowCounters& stats =
        nested.state().counters.of(MmuKind::kShadow).shadow;
    EXPECT_GT(ShadowCounters::Get(stats.mmu_shadow_pages), 1u);
    MemslotConfig gone = Slot(0, 0, kBytes, Level::k2M);
    gone.size_bytes = 0;
    ASSERT_TRUE(nested.vm().SetMemslot(gone).ok());
    nested.state().vcpus[0]->ReleaseRoot();
    EXPECT_EQ(ShadowCounters::Get(stats.mmu_shadow_pages), 0u);
    EXPECT_EQ(nested.vm().Stats().pages_2m, 0u);
    EXPECT_EQ(nested.vm().Stats().pages_4k, 0u);
    EXPECT_EQ(AuditFindings(nested.vm()), "");
  }
}

// Covers: AGE-10
TEST(ShadowSlotAgeTest, WithoutL2NoRmapIsLookedAt) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, kMiB)};
  auto vm = MakeVmFrom(config);
  Touch(*vm, GfnRange::Of(Gfn(0), 4));
  const AgeResult result = AgePages(vm->state(), 0, GfnRange::Of(Gfn(0), 8),
                                    AgeMode::kTest, AgeOptions{}, nullptr);
  EXPECT_THAT(result.mapped, IsEmpty()) << "one MMU is asked";
  EXPECT_EQ(result.young_page_count, 4u);
}

}  // namespace
}  // namespace mmu::testing
