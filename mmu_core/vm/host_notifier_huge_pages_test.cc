// The host takes a part of a host page that a guest maps by one huge leaf.
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"

namespace mmu::testing {
namespace {

// A guest on TDP tables and one on shadow pages: both must behave the same.
class HugeHostPageTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  static constexpr uint64_t kFarAway = kGiB;

  HugeHostPageTest() {
    VmConfig config;
    config.mmu = GetParam();
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, 4 * kMiB, Level::k2M),
                       Slot(1, kFarAway, 2 * kMiB)};
    vm_ = MakeVmFrom(config);
  }

  // Maps both pages of 2 MiB by small leafs, as a dirty log leaves them.
  void MapSmall() {
    ASSERT_TRUE(StartLog(*vm_, {.slots = {0}}, nullptr).ok());
    Touch(*vm_, GfnRange::Of(Gfn(0), 1024));
    ASSERT_TRUE(
        StopLog(*vm_, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
    ASSERT_EQ(vm_->Stats().pages_4k, 1024u);
    ASSERT_EQ(vm_->Stats().pages_2m, 0u);
  }
  // Adds a thread that writes to `gfn` until it succeeds.
  void AddWrite(Interleaving& threads, uint64_t gfn) {
    threads.Add("fault", [this, gfn] { Write(*vm_, gfn * kPageSize, 7); });
  }
  bool IsMapped(Gfn gfn) {
    if (GetParam() == MmuMode::kTdp) {
      return SpteOf(vm_->state(), gfn).IsPresent();
    }
    SlotRmaps& rmaps = *SlotOf(*vm_, gfn).shadow_rmaps();
    return !rmaps.Head(gfn, Level::k4K).empty() ||
           !rmaps.Head(gfn, Level::k2M).empty();
  }
  uint64_t Mapped() const {
    return vm_->Stats().pages_4k + 512 * vm_->Stats().pages_2m;
  }
  // The range of an invalidation of page 4 only.
  HvaRange OnePage() { return HostPagesOf(*vm_, 0, 4, 5); }

  std::unique_ptr<Vm> vm_;
};

// Covers: PF-27, TST-50
TEST_P(HugeHostPageTest, Race24AFaultBesideAnInvalidatedPageDoesNotMapOverIt) {
  Write(*vm_, 0);
  ASSERT_EQ(vm_->Stats().pages_2m, 1u);
  InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  EXPECT_EQ(Mapped(), 0u);
  Interleaving threads;
  AddWrite(threads, 0);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(Mapped(), 0u);
  // The other host page is not affected.
  Write(*vm_, 2 * kMiB, 1, /*vcpu=*/1);
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
  InvalidateRangeEnd(vm_->state(), OnePage());
  threads.RunToEnd("fault");
  EXPECT_EQ(vm_->Stats().pages_2m, 2u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: TDP-54, SHD-82, TST-50
TEST_P(HugeHostPageTest, Race44RecoveryPutsNothingOverAnInvalidatedPage) {
  MapSmall();
  // The gate allows an invalidation of one small page: its neighbours stay
  // mapped.
  InvalidationGate& gate = vm_->state().invalidations;
  {
    MmuWriteLocked lock(vm_->state().mmu_lock, LockOp::kNotifier);
    gate.Begin();
    gate.AddRange(GfnRange::Of(Gfn(4), 1));
    const GfnRange page = GfnRange::Of(Gfn(4), 1);
    vm_->state().tdp.ZapLeafs(lock, 0, page, RootFilter::kAll,
                              FlushReason::kNotifier, nullptr);
    if (vm_->state().shadow != nullptr) {
      vm_->state().shadow->unmap().ZapLeafs(lock, SlotOf(*vm_, Gfn(4)), page,
                                            FlushReason::kNotifier, nullptr);
    }
  }
  ASSERT_TRUE(vm_->RecoverHugePages({}, nullptr).ok());
  Interleaving threads;
  AddWrite(threads, 4);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_FALSE(IsMapped(Gfn(4)));
  {
    MmuWriteLocked lock(vm_->state().mmu_lock, LockOp::kNotifier);
    gate.End();
  }
  threads.RunToEnd("fault");
  ASSERT_TRUE(vm_->RecoverHugePages({}, nullptr).ok());
  Write(*vm_, 0);
  Write(*vm_, 2 * kMiB);
  EXPECT_EQ(vm_->Stats().pages_2m, 2u) << "what was left out comes later";
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: TDP-54, SHD-82
TEST_P(HugeHostPageTest, RecoveryMapsNothingOfAHostPageThatIsBeingTaken) {
  MapSmall();
  InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  ASSERT_TRUE(vm_->RecoverHugePages({}, nullptr).ok());
  for (uint64_t gfn = 0; gfn < 512; ++gfn) ASSERT_FALSE(IsMapped(Gfn(gfn)));
  InvalidateRangeEnd(vm_->state(), OnePage());
  Write(*vm_, 0);
  Write(*vm_, 2 * kMiB);
  EXPECT_EQ(vm_->Stats().pages_2m, 2u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// A fault finds its page held back, and the retry maps it. That makes one
// retry, although other invalidations and the vCPU's checks for requests wake
// the vCPU in between.
// Covers: PF-25
TEST_P(HugeHostPageTest, Race45AFaultThatIsHeldBackWaitsAndIsTriedOnce) {
  Write(*vm_, kFarAway);
  const VcpuStatsSnapshot before = vm_->VcpuStats()[0];
  InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  const HvaRange elsewhere = HostPagesOf(*vm_, 1, 8, 9);
  Interleaving threads;
  AddWrite(threads, 4);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  // Runs from here to the end, or to the next time at this hook.
  threads.StartTo("fault", HookPoint::kHeldBackToWait);
  for (int i = 0; i < 100; ++i) {
    HostUnmaps(*vm_, elsewhere);
  }
  InvalidateRangeEnd(vm_->state(), OnePage());
  threads.WaitForEnd("fault");
  const VcpuStatsSnapshot since = vm_->VcpuStats()[0].Since(before);
  EXPECT_EQ(since.pf_taken, 2u);
  EXPECT_EQ(since.pf_retried, 1u);
  EXPECT_EQ(since.pf_fixed, 1u);
  EXPECT_GT(since.stall_nanos[static_cast<int>(StallCause::kInvalidation)], 0);
}

// The vCPU is outside of guest mode and has no access open, so no flush waits
// for it.
// Covers: TLB-01, TLB-02
TEST_P(HugeHostPageTest, AVcpuThatIsHeldBackCanBeKickedAndFlushed) {
  InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  Vcpu& vcpu = *vm_->state().vcpus[0];
  Interleaving threads;
  threads.Add("fault", [&] {
    vcpu.EnterGuest();
    Write(*vm_, 4 * kPageSize, 7);
    vcpu.ExitGuest();
  });
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(vm_->state().tlb.KickOut().vcpus_kicked, 0);
  const uint64_t flushes = vcpu.stats().tlb_flush.Get();
  vm_->state().tlb.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  // The vCPU handles the request, finds the page still held back, and waits
  // again.
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(vcpu.stats().tlb_flush.Get(), flushes + 1);
  InvalidateRangeEnd(vm_->state(), OnePage());
  threads.RunToEnd("fault");
}

// A fault has found a huge page before the invalidation, and wants to map it
// afterwards.
// Covers: PF-25
TEST_P(HugeHostPageTest, Race24AHugePageResolvedBeforeTheChangeIsNotMapped) {
  Interleaving threads;
  AddWrite(threads, 0);
  threads.RunTo("fault", HookPoint::kFrameToLock);
  InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(Mapped(), 0u);
  InvalidateRangeEnd(vm_->state(), OnePage());
  threads.RunToEnd("fault");
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// An invalidation zaps two huge pages. A split job waits for the lock from
// before the first step, or from the first or second zap on. It gets the lock
// before the next step.
// Covers: TDP-60, TDP-39
TEST_P(HugeHostPageTest, Race47ASplitBesideAnInvalidationLeavesNothingMapped) {
  const HvaRange all = HostPagesOf(*vm_, 0, 0, 1024);
  for (const int zapped : {0, 1, 2}) {
    Write(*vm_, 0);
    Write(*vm_, 2 * kMiB);
    ASSERT_EQ(vm_->Stats().pages_2m, 2u);
    Interleaving threads;
    threads.Add("host", [&] {
      InvalidateRangeStart(vm_->state(), all, MayYield::kYes);
    });
    threads.Add("split", [&] {
      auto job = SplitJob::Create(vm_->state(), {});
      ASSERT_TRUE(job.ok());
      ASSERT_TRUE((*job)->Run().ok());
    });
    threads.RunTo("host", HookPoint::kWriteLocked);
    if (zapped > 0) {
      threads.RunTo("host",
                    GetParam() == MmuMode::kTdp ? HookPoint::kSnapshotToStore
                                                : HookPoint::kRmapLockToChange,
                    zapped);
    }
    threads.Start("split");
    while (!vm_->state().mmu_lock.IsContended() && !threads.HasEnded("split")) {
      std::this_thread::yield();
    }
    threads.RunToEnd("host");
    threads.WaitForEnd("split");
    EXPECT_EQ(Mapped(), 0u) << zapped;
    InvalidateRangeEnd(vm_->state(), all);
    EXPECT_EQ(AuditFindings(*vm_), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Mmus, HugeHostPageTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow),
                         [](const auto& p) {
                           return std::string(
                               p.param == MmuMode::kTdp ? "Tdp" : "TdpShadow");
                         });

// For steps of the TDP MMU only: a recovery of the shadow MMU only zaps.
class TdpHugeHostPageTest : public HugeHostPageTest {};

// Recovery has chosen a leaf, and holds mmu_lock until the huge leaf is linked.
// The invalidation comes afterwards, and finds the huge leaf.
// Covers: TDP-54, TST-50
TEST_P(TdpHugeHostPageTest, Race44AnInvalidationZapsWhatARecoveryHasJustMade) {
  MapSmall();
  Interleaving threads;
  threads.Add("recover",
              [&] { ASSERT_TRUE(vm_->RecoverHugePages({}, nullptr).ok()); });
  threads.Add("host", [&] {
    InvalidateRangeStart(vm_->state(), OnePage(), MayYield::kYes);
  });
  threads.RunTo("recover", HookPoint::kChosenToLink);
  threads.Start("host");
  threads.RunToEnd("recover");
  threads.WaitForEnd("host");
  for (uint64_t gfn = 0; gfn < 512; ++gfn) ASSERT_FALSE(IsMapped(Gfn(gfn)));
  InvalidateRangeEnd(vm_->state(), OnePage());
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(Mmu, TdpHugeHostPageTest,
                         ::testing::Values(MmuMode::kTdp));

}  // namespace
}  // namespace mmu::testing
