#include "mmu_core/vm/slots/host_notifier.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/vcpu/pre_fault.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

std::unique_ptr<Vm> MakeTwoSlots(int vcpus = 1) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, vcpus);
  Touch(*vm, GfnRange::Of(Gfn(0), 16));
  Touch(*vm, GfnRange::Of(ToGfn(Gpa(kGiB)), 16));
  return vm;
}

uint64_t SequenceOf(Vm& vm) { return vm.state().invalidations.snapshot(); }
uint64_t WriteLocksOf(Vm& vm) {
  return vm.Stats().lock.at(LockMode::kWrite, LockOp::kNotifier).acquisitions;
}

// Covers: AGE-01
TEST(HostNotifierTest, TheLastByteOfASlotIsPartOfItsLastPage) {
  auto vm = MakeTwoSlots();
  Touch(*vm, GfnRange::Of(Gfn(508), 4));
  const uint64_t mapped = vm->Stats().pages_4k;
  HvaRange range = HostPagesOf(*vm, 0, 511, 512);
  range.start += kPageSize - 1;
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  InvalidateRangeEnd(vm->state(), range);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(511)).IsPresent());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(510)).IsPresent());
  EXPECT_EQ(vm->Stats().pages_4k, mapped - 1);
}

// Covers: AGE-01, TDP-39
TEST(HostNotifierTest, PagesOfTheRangeAreUnmappedAlsoThoseItOnlyTouches) {
  auto vm = MakeTwoSlots();
  const uint64_t flushes = FlushesOf(*vm);
  HvaRange range = HostPagesOf(*vm, 0, 4, 8);
  range.start += kPageSize - 1;  // the last byte of page 4
  range.end += 1;                // the first byte of page 8
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  InvalidateRangeEnd(vm->state(), range);
  for (uint64_t page = 0; page < 16; ++page) {
    EXPECT_EQ(SpteOf(vm->state(), Gfn(page)).IsPresent(), page < 4 || page > 8)
        << page;
  }
  EXPECT_EQ(vm->Stats().pages_4k, 27u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A start reports no failure. If mmu_lock is held, it waits for the lock even
// if it may not yield, and unmaps. If another invalidation is in progress, it
// does not wait for the end.
// Covers: AGE-04
TEST(HostNotifierTest, AStartOnABusyVmIsNoErrorAndUnmaps) {
  static_assert(
      std::is_void_v<std::invoke_result_t<decltype(InvalidateRangeStart),
                                          VmCore&, HvaRange, MayYield>>);
  for (const MayYield may_yield : {MayYield::kYes, MayYield::kNo}) {
    auto vm = MakeTwoSlots();
    MmuLock& mmu_lock = vm->state().mmu_lock;
    const HvaRange first = HostPagesOf(*vm, 0, 0, 16);
    const HvaRange second = HostPagesOf(*vm, 1, 0, 16);
    const uint64_t flushes = FlushesOf(*vm);
    const uint64_t sequence = SequenceOf(*vm);
    Interleaving threads;
    threads.Add("first",
                [&] { InvalidateRangeStart(vm->state(), first, may_yield); });
    threads.Add("second",
                [&] { InvalidateRangeStart(vm->state(), second, may_yield); });
    {
      MmuWriteLocked busy(mmu_lock, LockOp::kZap);
      threads.Start("first");
      while (!mmu_lock.IsContended() && !threads.HasEnded("first")) {
        std::this_thread::yield();
      }
      EXPECT_FALSE(threads.HasEnded("first"));
      EXPECT_EQ(vm->Stats().pages_4k, 32u);
    }
    threads.WaitForEnd("first");
    EXPECT_EQ(vm->Stats().pages_4k, 16u);
    EXPECT_GT(FlushesOf(*vm), flushes);
    threads.RunToEnd("second");
    EXPECT_EQ(vm->Stats().pages_4k, 0u);
    EXPECT_TRUE(vm->state().invalidations.MaybeInvalidating(Gfn(0)));
    InvalidateRangeEnd(vm->state(), first);
    InvalidateRangeEnd(vm->state(), second);
    EXPECT_EQ(SequenceOf(*vm), sequence + 2);
    EXPECT_EQ(Write(*vm, 0, 7), AccessOutcome::kDone);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// Covers: AGE-02
TEST(HostNotifierTest, MemoryOfNobodyTakesNoLockAndInvalidatesNothing) {
  auto vm = MakeTwoSlots();
  const uint64_t locks = WriteLocksOf(*vm);
  const uint64_t sequence = SequenceOf(*vm);
  const HvaRange range = {Hva(kPageSize), Hva(16 * kPageSize)};
  InvalidateRangeStart(vm->state(), range, MayYield::kNo);
  InvalidateRangeEnd(vm->state(), range);
  EXPECT_EQ(WriteLocksOf(*vm), locks);
  EXPECT_EQ(SequenceOf(*vm), sequence);
}

// Covers: AGE-02, PF-26
TEST(HostNotifierTest, OnePairIsOneInvalidationHoweverManySlotsItMeets) {
  auto vm = MakeTwoSlots();
  const uint64_t sequence = SequenceOf(*vm);
  HvaRange all = HostPagesOf(*vm, 0, 0, 512);
  const HvaRange second = HostPagesOf(*vm, 1, 0, 512);
  all.start = std::min(all.start, second.start);
  all.end = std::max(all.end, second.end);
  InvalidateRangeStart(vm->state(), all, MayYield::kYes);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  InvalidateRangeEnd(vm->state(), all);
  EXPECT_EQ(SequenceOf(*vm), sequence + 1);
}

// Covers: AGE-03, TDP-23, TDP-39
TEST(HostNotifierTest, OnlyOneThatMayYieldDoes) {
  const LeapingHoldClock clock;  // whoever looks at it has to yield
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB)});
  const HvaRange range = HostPagesOf(*vm, 0, 0, 2048);
  const auto yields = [&] {
    return YieldsOf(*vm, LockMode::kWrite, LockOp::kNotifier);
  };
  for (const MayYield may_yield : {MayYield::kNo, MayYield::kYes}) {
    Touch(*vm, GfnRange::Of(Gfn(0), 2048));
    const uint64_t before = yields();
    InvalidateRangeStart(vm->state(), range, may_yield);
    EXPECT_EQ(yields() > before, may_yield == MayYield::kYes);
    EXPECT_EQ(vm->Stats().pages_4k, 0u);
    InvalidateRangeEnd(vm->state(), range);
  }
}

// Covers: PF-27, TDP-39
TEST(HostNotifierTest, BetweenStartAndEndNothingIsMapped) {
  auto vm = MakeTwoSlots(2);
  const HvaRange range = HostPagesOf(*vm, 0, 0, 16);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  Interleaving threads;
  threads.Add("vcpu", [&] { Write(*vm, 0, 7, 1); });
  threads.RunTo("vcpu", HookPoint::kHeldBackToWait);
  // The guest can still use other pages.
  EXPECT_EQ(Write(*vm, kGiB, 8, 0), AccessOutcome::kDone);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsPresent());
  InvalidateRangeEnd(vm->state(), range);
  threads.RunToEnd("vcpu");
  EXPECT_EQ(ReadValue(*vm, 0), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Starts a change of the slots while "host" of `threads` stands within an
// invalidation. The change has to wait until "host" has ended.
void ExpectSlotsChangeAfter(Vm& vm, Interleaving& threads) {
  threads.Add("change", [&] {
    EXPECT_TRUE(vm.SetMemslot(Slot(2, 2 * kGiB, 2 * kMiB)).ok());
  });
  threads.Start("change");
  // It takes slots_lock and waits for the end of the invalidation.
  while (!threads.HasEnded("change") && vm.state().slots.slots_lock.TryLock()) {
    vm.state().slots.slots_lock.Unlock();
    std::this_thread::yield();
  }
  EXPECT_FALSE(threads.EndsSoon("change"));
  threads.RunToEnd("host");
  threads.WaitForEnd("change");
  EXPECT_EQ(vm.Memslots().size(), 3u);
}

// Covers: SLOT-23
TEST(HostNotifierTest, SlotsDoNotChangeBetweenStartAndEnd) {
  auto vm = MakeTwoSlots();
  const HvaRange range = HostPagesOf(*vm, 0, 0, 16);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  Interleaving threads;
  threads.Add("host", [&] { InvalidateRangeEnd(vm->state(), range); });
  ExpectSlotsChangeAfter(*vm, threads);
}

// Covers: SLOT-23
TEST(HostNotifierTest, SlotsDoNotChangeWhileTheHostChangesTheAccess) {
  auto vm = MakeTwoSlots();
  Interleaving threads;
  threads.Add("host", [&] {
    SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 0, 16),
                  HostAccess::kReadOnly);
  });
  threads.RunTo("host", HookPoint::kUnmapToChange);
  ExpectSlotsChangeAfter(*vm, threads);
}

// Covers: SLOT-23, TDP-38
TEST(HostNotifierTest, SlotsDoNotChangeWhileFramesAreZapped) {
  auto vm = MakeTwoSlots();
  Interleaving threads;
  threads.Add("host",
              [&] { ZapGfnRange(vm->state(), 0, GfnRange::Of(Gfn(4), 4)); });
  threads.RunTo("host", HookPoint::kUnlock);
  ExpectSlotsChangeAfter(*vm, threads);
}

// Covers: TDP-09, TDP-39
TEST(HostNotifierTest, InvalidRootsAreUnmappedTooAndOweNoFlush) {
  auto vm = MakeTwoSlots();
  // A reference keeps the old root and its mappings from being freed.
  auto& roots = const_cast<RootList&>(vm->state().tdp.roots());
  RootRef kept = roots.First(RootFilter::kValid, 0);
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    roots.InvalidateAll();
  }
  ASSERT_TRUE(kept->IsInvalid());
  ASSERT_TRUE(EntryIn(*kept, Gfn(3), Level::k4K).Load().IsPresent());
  const uint64_t flushes = FlushesOf(*vm);
  const HvaRange range = HostPagesOf(*vm, 0, 0, 16);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  EXPECT_FALSE(EntryIn(*kept, Gfn(3), Level::k4K).Load().IsPresent());
  EXPECT_EQ(FlushesOf(*vm), flushes);
  InvalidateRangeEnd(vm->state(), range);
  kept.reset();
  MutexLock lock(vm->state().slots.slots_lock);
  vm->state().tdp.FastZapAll(nullptr);
}

// A zap of an invalid root lets a notification have the lock. The root is still
// in the list, so pages that the zap has not reached yet are unmapped before
// the host takes them.
// Covers: TDP-06
TEST(HostNotifierTest, AnUnmapFindsAnInvalidRootThatIsBeingZapped) {
  auto vm = MakeTwoSlots();
  const TdpRoot& root = *vm->state().vcpus[0]->root();
  const HvaRange range = HostPagesOf(*vm, 0, 8, 16);
  const uint64_t flushes = FlushesOf(*vm);
  Interleaving threads;
  threads.Add("zap", [&] {
    MutexLock lock(vm->state().slots.slots_lock);
    vm->state().tdp.FastZapAll(nullptr);
  });
  threads.Add("unmap",
              [&] { InvalidateRangeStart(vm->state(), range, MayYield::kNo); });
  threads.RunTo("zap", HookPoint::kSnapshotToExchange);
  ASSERT_TRUE(root.IsInvalid());
  threads.Start("unmap");
  Await("a thread waits for mmu_lock",
        [&] { return vm->state().mmu_lock.IsContended(); });
  // The zap removes gfn 0, then yields, and stops when it has the lock again.
  threads.StartTo("zap", HookPoint::kReadLocked);
  threads.WaitUntilThere("zap");
  threads.WaitForEnd("unmap");
  std::vector<uint64_t> mapped;
  for (uint64_t gfn = 0; gfn < 16; ++gfn) {
    if (EntryIn(root, Gfn(gfn), Level::k4K).Load().IsPresent()) {
      mapped.push_back(gfn);
    }
  }
  EXPECT_THAT(mapped, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  threads.RunToEnd("zap");
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(FlushesOf(*vm), flushes) << "no vCPU can use that root";
  InvalidateRangeEnd(vm->state(), range);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Two address spaces have memory of their own at the same gfn.
// Covers: TDP-39
TEST(HostNotifierTest, OnlyTheAddressSpaceOfTheSlotIsUnmapped) {
  MemslotConfig other = Slot(0, 0, 2 * kMiB);
  other.address_space = 1;
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), other});
  Write(*vm, 5 * kPageSize);
  TableCache cache(vm->state().pool);
  auto root = vm->state().tdp.LoadRoot(1, cache);
  ASSERT_TRUE(root.ok());
  PageFault fault = FaultOn(*vm, Gfn(5), AccessKind::kWrite, 1);
  ASSERT_EQ(MapInto(*vm, **root, fault, cache), FaultResult::kFixed);
  const auto mapped_in = [&](int as_id) {
    return EntryOf(*vm, Gfn(5), Level::k4K, as_id).Load().IsPresent();
  };
  const auto unmap = [&](int as_id) {
    const Hva page = SlotOf(*vm, Gfn(5), as_id).hva + 5 * kPageSize;
    HostUnmaps(*vm, {page, page + kPageSize});
  };
  ASSERT_TRUE(mapped_in(0) && mapped_in(1));
  unmap(0);
  EXPECT_FALSE(mapped_in(0));
  EXPECT_TRUE(mapped_in(1));
  Write(*vm, 5 * kPageSize);
  unmap(1);
  EXPECT_TRUE(mapped_in(0));
  EXPECT_FALSE(mapped_in(1));
}

// Covers: TDP-38
TEST(HostNotifierTest, ZapOfGfnsIsAnInvalidationOfItsOwn) {
  auto vm = MakeTwoSlots();
  const uint64_t sequence = SequenceOf(*vm);
  const uint64_t flushes = FlushesOf(*vm);
  ZapGfnRange(vm->state(), 0, GfnRange::Of(Gfn(4), 4));
  EXPECT_EQ(SequenceOf(*vm), sequence + 1);
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  EXPECT_EQ(vm->Stats().pages_4k, 28u);
}

// Writes with a vCPU. Returns the errno of its exit, or 0 if the write
// succeeded.
int ErrnoOfWrite(Vm& vm, uint64_t gpa, uint64_t value) {
  switch (Write(vm, gpa, value)) {
    case AccessOutcome::kDone:
      return 0;
    case AccessOutcome::kError:
      return DetailOf(vm.state().vcpus[0]->status()).kvm_errno;
    default:
      return -1;
  }
}

// Covers: PF-23, PF-16
TEST(HostNotifierTest, AWriteToAPageThatTheHostLetsBeReadOnlyIsEfault) {
  auto vm = MakeTwoSlots();
  const uint64_t flushes = FlushesOf(*vm);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 4, 8), HostAccess::kReadOnly);
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  // The first write finds no mapping, the second finds the mapping of a read.
  EXPECT_EQ(ErrnoOfWrite(*vm, 4 * kPageSize, 7), EFAULT);
  EXPECT_EQ(ReadValue(*vm, 4 * kPageSize), 5u);
  EXPECT_FALSE(
      vm->state().tdp.format().IsHostWritable(SpteOf(vm->state(), Gfn(4))));
  EXPECT_EQ(ErrnoOfWrite(*vm, 4 * kPageSize, 7), EFAULT);
  EXPECT_EQ(DetailOf(vm->state().vcpus[0]->status()).reason,
            Reason::kHostReadOnly);
  EXPECT_EQ(ErrnoOfWrite(*vm, 3 * kPageSize, 7), 0);
  EXPECT_EQ(ErrnoOfWrite(*vm, 8 * kPageSize, 7), 0);
  EXPECT_EQ(AuditFindings(*vm), "");

  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 0, 16),
                HostAccess::kReadWrite);
  EXPECT_EQ(ReadValue(*vm, 4 * kPageSize), 5u);
  EXPECT_EQ(ErrnoOfWrite(*vm, 4 * kPageSize, 7), 0);
  EXPECT_EQ(ReadValue(*vm, 4 * kPageSize), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-44
TEST(HostNotifierTest, AHugePageThatIsReadOnlyInPartIsMappedSmall) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 4, 8), HostAccess::kReadOnly);
  EXPECT_EQ(ErrnoOfWrite(*vm, 4 * kPageSize, 7), EFAULT);
  EXPECT_EQ(ErrnoOfWrite(*vm, 0, 7), 0);
  Read(*vm, 4 * kPageSize);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(512)), Level::k2M);
  EXPECT_EQ(vm->RecoverHugePages({}, nullptr)->to_2m_count, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");

  // A block that is read-only as a whole can be one huge mapping.
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 0, 512),
                HostAccess::kReadOnly);
  Read(*vm, 4 * kPageSize);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(ErrnoOfWrite(*vm, 0, 7), EFAULT);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 0, 512),
                HostAccess::kReadWrite);
  EXPECT_EQ(ErrnoOfWrite(*vm, 0, 7), 0);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(HostNotifierTest, ReadOnlyMemoryStaysSoInADirtyLogAndWhenItMoves) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 0, 512),
                HostAccess::kReadOnly);
  Read(*vm, 0);
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, log, nullptr).ok());
  EXPECT_EQ(ErrnoOfWrite(*vm, 0, 7), EFAULT);
  EXPECT_TRUE(SealAndList(*vm, 0).empty());
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kRefuse, nullptr).ok());
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(ErrnoOfWrite(*vm, 0, 7), EFAULT);
  ASSERT_TRUE(vm->SetMemslot(Slot(0, kGiB, 4 * kMiB, Level::k2M)).ok());
  EXPECT_EQ(ErrnoOfWrite(*vm, kGiB, 7), EFAULT);
  EXPECT_EQ(ErrnoOfWrite(*vm, kGiB + 2 * kMiB, 7), 0);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A fault that was resolved before the change and installed after it would let
// the guest write to a read-only page.
// Covers: PF-25
TEST(HostNotifierTest, AFaultUnderWayDuringTheChangeSeesIt) {
  auto vm = MakeTwoSlots();
  Interleaving threads;
  int result = 0;
  threads.Add("fault", [&] { result = ErrnoOfWrite(*vm, 20 * kPageSize, 7); });
  threads.RunTo("fault", HookPoint::kFrameToLock);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 20, 21),
                HostAccess::kReadOnly);
  threads.RunToEnd("fault");
  EXPECT_EQ(result, EFAULT);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The same change before the fault has found the page. The fault has the
// sequence from before the change, so it does not trust what it finds.
// Covers: PF-21
TEST(HostNotifierTest, Race9AChangeBetweenTheSequenceAndTheFrameIsSeen) {
  auto vm = MakeTwoSlots();
  Interleaving threads;
  int result = 0;
  threads.Add("fault", [&] { result = ErrnoOfWrite(*vm, 20 * kPageSize, 7); });
  threads.RunTo("fault", HookPoint::kSequenceToFrame);
  SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 20, 21),
                HostAccess::kReadOnly);
  threads.RunToEnd("fault");
  EXPECT_EQ(result, EFAULT);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// RACE-24: the faulting page and the range lie in one host page. A huge mapping
// would let the guest write to both.
// Covers: TST-50
TEST(HostNotifierTest, AFaultBesideTheChangeDoesNotMapOverIt) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Interleaving threads;
  threads.Add("host", [&] {
    SetHostAccess(vm->state(), HostPagesOf(*vm, 0, 4, 8),
                  HostAccess::kReadOnly);
  });
  threads.Add("fault", [&] { Write(*vm, 0, 7); });
  threads.RunTo("host", HookPoint::kUnmapToChange);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsPresent());
  threads.RunToEnd("host");
  threads.RunToEnd("fault");
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k4K);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The zap may drop the lock in the middle, so faults are told before it begins.
void ExpectInvalidatedDuring(const std::function<void(Vm&)>& zap_page_4) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  const InvalidationGate& gate = vm->state().invalidations;
  int seen = 0;
  LockTrace trace([&](const LockTrace::Event& event) {
    if (event.point != HookPoint::kSnapshotToStore) return;
    ++seen;
    EXPECT_TRUE(gate.MaybeInvalidating(Gfn(0)));
    EXPECT_TRUE(gate.MaybeInvalidating(Gfn(511)));
    EXPECT_FALSE(gate.MaybeInvalidating(Gfn(512)));
  });
  zap_page_4(*vm);
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
}

// Covers: TDP-38, PF-27
TEST(HostNotifierTest, WhileFramesAreZappedNothingIsMappedBesideThem) {
  ExpectInvalidatedDuring(
      [](Vm& vm) { ZapGfnRange(vm.state(), 0, GfnRange::Of(Gfn(4), 1)); });
}

// Covers: TDP-39, PF-27
TEST(HostNotifierTest, WhileTheHostUnmapsNothingIsMappedBesideIt) {
  ExpectInvalidatedDuring([](Vm& vm) {
    const HvaRange range = HostPagesOf(vm, 0, 4, 5);
    InvalidateRangeStart(vm.state(), range, MayYield::kYes);
    InvalidateRangeEnd(vm.state(), range);
  });
}

// Both ends of the range lie within a host page.
// Covers: PF-27
TEST(HostNotifierTest, AnInvalidationIsWidenedAtBothEnds) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k2M)});
  const HvaRange range = HostPagesOf(*vm, 0, 1000, 1030);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  const InvalidationGate& gate = vm->state().invalidations;
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(511)));
  EXPECT_TRUE(gate.MaybeInvalidating(Gfn(512)));
  EXPECT_TRUE(gate.MaybeInvalidating(Gfn(1535)));
  EXPECT_FALSE(gate.MaybeInvalidating(Gfn(1536)));
  InvalidateRangeEnd(vm->state(), range);
}

// Faults on a slot that is being deleted are held back until it is gone.
// Covers: SLOT-25
TEST(HostNotifierTest, AFaultOnASlotThatIsBeingDeletedWaitsForTheEnd) {
  auto vm = MakeTwoSlots();
  Interleaving threads;
  AccessOutcome outcome = AccessOutcome::kDone;
  threads.Add("delete",
              [&] { EXPECT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok()); });
  threads.Add("fault", [&] { outcome = Write(*vm, kGiB + 20 * kPageSize, 7); });
  // The slot is published as invalid, and the deletion waits for readers of the
  // previous set.
  threads.RunTo("delete", HookPoint::kGracePeriod);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  threads.RunToEnd("delete");
  threads.RunToEnd("fault");
  EXPECT_EQ(outcome, AccessOutcome::kEmulated) << "no memory is there any more";
  EXPECT_EQ(vm->VcpuStats()[0].pf_retried, 1u);
}

// Covers: PF-41
TEST(HostNotifierTest, APreFaultThatIsHeldBackCanBeInterrupted) {
  auto vm = MakeTwoSlots();
  const HvaRange range = HostPagesOf(*vm, 0, 20, 21);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  std::atomic<bool> interrupted{false};
  PreFaultRange pages = {.gpa = Gpa(20 * kPageSize), .size_bytes = kPageSize};
  absl::Status status;
  Interleaving threads;
  threads.Add("map ahead", [&] {
    status = PreFaultMemory(vm->state(), *vm->state().vcpus[0], pages,
                            [&] { return interrupted.load(); });
  });
  threads.RunTo("map ahead", HookPoint::kHeldBackToWait);
  interrupted.store(true);
  threads.RunToEnd("map ahead");
  EXPECT_EQ(DetailOf(status).reason, Reason::kInterrupted);
  EXPECT_EQ(pages.size_bytes, kPageSize);
  InvalidateRangeEnd(vm->state(), range);
}

// The pre-fault has found its frame when the host takes it.
// Covers: PF-25, PF-41
TEST(HostNotifierTest, APreFaultUnderWayDuringAnInvalidationIsHeldBack) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  const HvaRange range = HostPagesOf(*vm, 0, 4, 5);
  PreFaultRange pages = {.gpa = Gpa(0), .size_bytes = kPageSize};
  absl::Status status;
  Interleaving threads;
  threads.Add("map ahead", [&] {
    status = PreFaultMemory(vm->state(), *vm->state().vcpus[0], pages,
                            [] { return false; });
  });
  threads.RunTo("map ahead", HookPoint::kFrameToLock);
  InvalidateRangeStart(vm->state(), range, MayYield::kYes);
  threads.RunTo("map ahead", HookPoint::kHeldBackToWait);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsPresent());
  InvalidateRangeEnd(vm->state(), range);
  threads.RunToEnd("map ahead");
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
}

// Recovery of an NX huge page only zaps. The fault that would map the huge page
// again waits.
// Covers: SPTE-53, PF-27
TEST(HostNotifierTest, NxRecoveryMapsNothingThatIsBeingInvalidated) {
  NxParameters nx(ItlbMultihit::kNo);
  ASSERT_TRUE(nx.SetNxHugePages("force").ok());
  VmConfig config;
  config.memslots = {Slot(0, 0, 4 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config, nx);
  Exec(*vm, 0);
  ASSERT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k4K);
  // The gate allows an invalidation of one small page: the table stays.
  InvalidationGate& gate = vm->state().invalidations;
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
    gate.Begin();
    gate.AddRange(GfnRange::Of(Gfn(4), 1));
  }
  EXPECT_EQ(RecoverNxHugePages(vm->state(), 1), 1u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k256T);
  Interleaving threads;
  threads.Add("fault", [&] { Read(*vm, 4 * kPageSize); });
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(4)).IsPresent());
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
    gate.End();
  }
  threads.RunToEnd("fault");
  EXPECT_EQ(LevelOf(vm->state(), Gfn(4)), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A test stops at the first slot with a young page. Its answer does not depend
// on which slot that is, and it changes neither. A clear continues in all
// slots.
//
// Covers: AGE-12
TEST(HostNotifierTest, ATestOfYoungIsTheSameInAnyOrderOfTheSlots) {
  auto vm = MakeTwoSlots();
  VmState& state = vm->state();
  const HvaRange first = HostPagesOf(*vm, 0, 0, 16);
  const HvaRange second = HostPagesOf(*vm, 1, 0, 16);
  const HvaRange all = {std::min(first.start, second.start),
                        std::max(first.end, second.end)};
  for (const bool uses_first : {false, true}) {
    for (const bool uses_second : {false, true}) {
      SCOPED_TRACE(::testing::Message() << uses_first << uses_second);
      ClearYoung(state, all);
      state.vcpus[0]->ReleaseRoot();  // empties the vCPU's TLB
      if (uses_first) Read(*vm, 0);
      if (uses_second) Read(*vm, kGiB);
      EXPECT_EQ(TestYoung(state, all).young, uses_first || uses_second);
      EXPECT_EQ(TestYoung(state, first).young, uses_first);
      EXPECT_EQ(TestYoung(state, second).young, uses_second);
      EXPECT_EQ(ClearYoung(state, all).young, uses_first || uses_second);
      EXPECT_FALSE(TestYoung(state, first).young);
      EXPECT_FALSE(TestYoung(state, second).young);
    }
  }
}

// Covers: AGE-16
TEST(HostNotifierTest, YoungIsTestedAndClearedWithoutLockOrFlush) {
  auto vm = MakeTwoSlots();
  const HvaRange range = HostPagesOf(*vm, 0, 0, 16);
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t locks = WriteLocksOf(*vm);
  EXPECT_TRUE(TestYoung(vm->state(), range).young);
  EXPECT_TRUE(ClearYoung(vm->state(), range).young);
  EXPECT_FALSE(TestYoung(vm->state(), range).young);
  EXPECT_TRUE(TestYoung(vm->state(), HostPagesOf(*vm, 1, 0, 16)).young);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(WriteLocksOf(*vm), locks);
}

}  // namespace
}  // namespace mmu::testing
