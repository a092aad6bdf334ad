// The races of mmu_core/LOCKING.md, each built step by step.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/race_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kPage = 5;
constexpr uint64_t kPageGpa = kPage * kPageSize;

// A logging VM with one 2 MiB slot of small pages; page 5 is mapped and clean.
std::unique_ptr<Vm> MakeLoggingVm(int vcpus = 2) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, vcpus);
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1));
  EXPECT_TRUE(StartLog(*vm, {}, nullptr).ok());
  return vm;
}

std::vector<uint64_t> HarvestSlot(Vm& vm) {
  return Harvest(vm, 0, 2 * kMiB / kPageSize);
}

void Delete(Vm& vm, uint32_t slot) {
  MemslotConfig gone;
  gone.slot = slot;
  EXPECT_TRUE(vm.SetMemslot(gone).ok());
}

int CountOf(const std::vector<HookPoint>& trace, HookPoint point) {
  return static_cast<int>(std::count(trace.begin(), trace.end(), point));
}

// A whole harvest runs between the fault's look at the entry and its exchange.
// If the fault marked first, that harvest would take the mark, and the write
// would be in no later one.
// Covers: PF-15, TST-50
TEST(RaceTest, Race1HarvestBeforeTheFastFaultsExchangeLosesNothing) {
  auto vm = MakeLoggingVm();
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.Add("harvest", [&] { HarvestSlot(*vm); });
  threads.RunTo("fault", HookPoint::kFastFaultToExchange);
  threads.RunToEnd("harvest");
  threads.RunToEnd("fault");
  EXPECT_TRUE(Contains(SealAndList(*vm, 0), kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
}

// The clear of an older mark comes between the exchange and the new mark. The
// page ends write-protected and marked, and the guest's next write faults
// again.
// Covers: PF-15
TEST(RaceTest, Race1ClearBetweenExchangeAndMarkReportsOnceMore) {
  auto vm = MakeLoggingVm();
  Write(*vm, kPageGpa, 1);
  uint64_t epoch = 0;
  ASSERT_TRUE(Contains(SealAndList(*vm, 0, &epoch), kPage));
  // The page is write-protected again without being cleared.
  WriteProtect(*vm, GfnRange::Of(Gfn(kPage), 1));
  vm->state().vcpus[0]->tlb().FlushAll();
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;

  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.Add("clear", [&] {
    const uint64_t npages = 2 * kMiB / kPageSize;
    EXPECT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, npages,
                                MaskOf(npages, {kPage}), nullptr)
                    .ok());
  });
  threads.RunTo("fault", HookPoint::kExchangeToMark);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(kPage)).IsWritable());
  threads.RunToEnd("clear");
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsWritable());
  threads.RunToEnd("fault");
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken + 2);
  EXPECT_TRUE(Contains(SealAndList(*vm, 0), kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
}

// A seal comes between the mark and the leaf of a slow fault. The clear of the
// sealed page must wait for the leaf, so that it can protect it.
// Covers: SPTE-16, TST-50
TEST(RaceTest, Race2ClearWaitsForTheSlowFaultThatMarked) {
  auto vm = MakeLoggingVm();
  constexpr uint64_t kOther = 9;  // not mapped yet
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kOther * kPageSize, 7); });
  std::vector<uint64_t> harvested;
  threads.Add("harvest", [&] { harvested = HarvestSlot(*vm); });
  threads.RunTo("fault", HookPoint::kMarkToInstall);
  threads.RunTo("harvest", HookPoint::kTakeToProtect);
  threads.Start("harvest");
  // The clear asks for mmu_lock in write mode, and the fault holds it in read
  // mode.
  Await("a thread waits for mmu_lock",
        [&] { return vm->state().mmu_lock.IsContended(); });
  EXPECT_FALSE(threads.HasEnded("harvest"));
  threads.Start("fault");
  threads.WaitForEnd("harvest");
  threads.WaitForEnd("fault");
  EXPECT_TRUE(Contains(harvested, kOther));
  // After that, the write is in the copy or in the log, in either order.
  const bool logged = Contains(SealAndList(*vm, 0), kOther);
  EXPECT_TRUE(logged || !SpteOf(vm->state(), Gfn(kOther)).IsWritable());
  EXPECT_EQ(Memory(*vm, kOther * kPageSize), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// 8 MiB mapped by huge pages and split to small ones. gfn 5 is not mapped.
std::unique_ptr<Vm> MakeSplitVm(int vcpus = 2) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k2M)}, vcpus);
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  ZapLeafs(*vm, GfnRange::Of(Gfn(kPage), 1));
  EXPECT_EQ(vm->Stats().pages_4k, k2MPages - 1);
  return vm;
}

FaultResult MapSmall(Vm& vm, Gfn gfn) {
  PageFault fault = FaultOn(vm, gfn, AccessKind::kRead);
  fault.max_level = Level::k4K;
  TableCache cache(vm.state().pool);
  return MapInto(vm, *vm.state().vcpus[0]->root(), fault, cache);
}

// Covers: TDP-28, TDP-29, TST-50
TEST(RaceTest, Race3FaultIntoARemovedTableFailsAndRetries) {
  auto vm = MakeSplitVm();
  const uint64_t tables = vm->Stats().table_pages;
  FaultResult result = FaultResult::kContinue;
  Interleaving threads;
  threads.Add("fault", [&] { result = MapSmall(*vm, Gfn(kPage)); });
  threads.Add("recover", [&] { Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  threads.RunTo("fault", HookPoint::kSnapshotToExchange);
  threads.RunToEnd("recover");
  threads.RunToEnd("fault");
  EXPECT_EQ(result, FaultResult::kRetry);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().table_pages, tables - 1);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The other order: the fault installs its leaf before the entry is frozen. The
// removal takes the leaf out of the counts again.
// Covers: TDP-28
TEST(RaceTest, Race3LeafInstalledAfterTheUnlinkIsAccountedFor) {
  auto vm = MakeSplitVm();
  Interleaving threads;
  FaultResult result = FaultResult::kContinue;
  threads.Add("fault", [&] { result = MapSmall(*vm, Gfn(kPage)); });
  threads.Add("recover", [&] { Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  threads.RunTo("fault", HookPoint::kSnapshotToExchange);
  threads.RunTo("recover", HookPoint::kUnlinkToFreeze);
  threads.RunToEnd("fault");
  EXPECT_EQ(result, FaultResult::kFixed);
  threads.RunToEnd("recover");
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-30, TLB-10, TST-50
TEST(RaceTest, Race4TableIsNotFreedUnderAWalker) {
  auto vm = MakeSplitVm();
  VmState& state = vm->state();
  const uint64_t before = state.pool.tables_out();
  Interleaving threads;
  WalkResult walk;
  threads.Add("walk", [&] {
    walk = HardwareWalk(state.tdp.format(), state.mmio, state.memory,
                        *state.vcpus[0]->root(), Gfn(7), AccessKind::kRead,
                        /*pml=*/nullptr);
  });
  threads.Add("recover", [&] { Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  // The walk goes from level 4 to 1, so the third table pointer leads to the
  // table of small pages.
  threads.RunTo("walk", HookPoint::kWalkToTable, 3);
  threads.RunToEnd("recover");
  EXPECT_EQ(state.pool.tables_out(), before) << "freed too early";
  threads.RunToEnd("walk");
  EXPECT_EQ(walk.kind, WalkResult::Kind::kNotPresent);
  RcuBarrier();
  EXPECT_EQ(state.pool.tables_out(), before - 1);
}

// Covers: SLOT-52, TST-50
TEST(RaceTest, Race6SecondMarkerOfAPageRaisesWhatTheFirstHasNot) {
  DirtyBitmap bitmap(10'000, InitiallySet::kNo);
  Interleaving threads;
  threads.Add("first", [&] { bitmap.Mark(4321); });
  threads.RunTo("first", HookPoint::kBitToSummary);
  EXPECT_FALSE(bitmap.Mark(4321)) << "somebody else made it dirty";
  uint64_t taken = 0;
  bitmap.TakeAll(0, bitmap.word_count(),
                 [&](uint64_t, uint64_t value) { taken += value != 0; });
  EXPECT_EQ(taken, 1u) << "a mark that has returned is always found";
}

// Covers: SLOT-52
TEST(RaceTest, Race6MarkDuringATakeIsInThisOneOrTheNext) {
  DirtyBitmap bitmap(10'000, InitiallySet::kNo);
  bitmap.Mark(4320);
  std::vector<uint64_t> taken;
  const auto take = [&] {
    bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t value) {
      for (const uint64_t page : PagesOf({&value, 1})) {
        taken.push_back(64 * i + page);
      }
    });
  };
  Interleaving threads;
  threads.Add("take", take);
  threads.RunTo("take", HookPoint::kSummaryToTake);
  bitmap.Mark(4321);  // in the word that is being taken
  bitmap.Mark(5000);  // in another one
  threads.RunToEnd("take");
  take();
  std::sort(taken.begin(), taken.end());
  EXPECT_EQ(taken, (std::vector<uint64_t>{4320, 4321, 5000}));
  EXPECT_EQ(bitmap.CountDirty(), 0u);
}

// A flush comes between a vCPU's announcement and its look at the requests. The
// flush waits for the vCPU, which then must see the request and flush its TLB.
// Covers: TLB-11, TLB-02, TST-50
TEST(RaceTest, Race5AccessThatWasAnnouncedMeetsTheFlushOrIsWaitedFor) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  Write(*vm, kPageGpa, 1);
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  Interleaving threads;
  threads.Add("guest", [&] { Write(*vm, kPageGpa, 2); });
  threads.Add("zap", [&] { ZapLeafs(*vm, GfnRange::Of(Gfn(kPage), 1)); });
  threads.RunTo("guest", HookPoint::kAnnounceToLook);
  threads.Start("zap");
  while ((vm->state().vcpus[0]->gate().pending_requests() & kTlbFlush) == 0) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(threads.EndsSoon("zap")) << "the access may be going on";
  threads.RunToEnd("guest");
  threads.WaitForEnd("zap");
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken + 1) << "nothing stale is used";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A vCPU in the middle of an access holds up the flush.
// Covers: TLB-02, TLB-11
TEST(RaceTest, Race5FlushWaitsForTheWalkThatIsGoingOn) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  Write(*vm, kPageGpa, 1);
  vm->state().vcpus[0]->tlb().FlushAll();
  Interleaving threads;
  threads.Add("guest", [&] { Write(*vm, kPageGpa, 2); });
  threads.Add("flush", [&] {
    vm->state().tlb.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  });
  threads.RunTo("guest", HookPoint::kWalkToTable);
  threads.Start("flush");
  while ((vm->state().vcpus[0]->gate().pending_requests() & kTlbFlush) == 0) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(threads.EndsSoon("flush"));
  threads.RunToEnd("guest");
  threads.WaitForEnd("flush");
  EXPECT_EQ(Memory(*vm, kPageGpa), 2u);
}

// Covers: TST-50
TEST(RaceTest, Race7PeekDuringASealSeesThePageThatMoves) {
  auto vm = MakeLoggingVm();
  Write(*vm, kPageGpa, 1);
  std::vector<uint64_t> words(8);
  Interleaving threads;
  threads.Add("seal", [&] { EXPECT_TRUE(SealLog(*vm, 0, nullptr).ok()); });
  threads.Add("peek", [&] {
    EXPECT_TRUE(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(words)).ok());
  });
  threads.RunTo("seal", HookPoint::kJoinToLeave);
  threads.Start("peek");  // waits for DirtyLog::mu_, or has looked already
  threads.RunToEnd("seal");
  threads.WaitForEnd("peek");
  EXPECT_TRUE(Contains(PagesOf(words), kPage));
}

// A vCPU needs a root while the roots are being invalidated. It waits, and gets
// a valid root.
// Covers: TDP-34, TDP-05, TST-50
TEST(RaceTest, Race8VcpuThatLoadsDuringAFastZapGetsAValidRoot) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1), AccessKind::kWrite, 0);
  const TdpRoot* old_root = vm->state().vcpus[0]->root();
  const uint64_t old_id = old_root->id();
  Interleaving threads;
  threads.Add("zap", [&] {
    MutexLock lock(vm->state().slots.slots_lock);
    vm->state().tdp.FastZapAll(nullptr);
  });
  threads.Add("fresh", [&] { Read(*vm, kPageGpa, 1); });
  threads.RunTo("zap", HookPoint::kInvalidateToRequest);
  EXPECT_TRUE(old_root->IsInvalid()) << "a vCPU that is asked must see that";
  EXPECT_EQ(vm->state().vcpus[0]->gate().pending_requests(), 0u);
  threads.Start("fresh");
  // The vCPU waits for mmu_lock in read mode.
  Await("the vCPU waits or has a root", [&] {
    return vm->state().mmu_lock.IsContended() || threads.HasEnded("fresh");
  });
  EXPECT_FALSE(threads.HasEnded("fresh"));
  threads.RunToEnd("zap");
  threads.WaitForEnd("fresh");
  EXPECT_FALSE(vm->state().vcpus[1]->root()->IsInvalid());
  EXPECT_NE(vm->state().vcpus[1]->root()->id(), old_id);
  // The vCPU that had the root handles the request before its next access.
  Read(*vm, kPageGpa, 0);
  EXPECT_FALSE(vm->state().vcpus[0]->root()->IsInvalid());
  EXPECT_NE(vm->state().vcpus[0]->root()->id(), old_id);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-21, PF-25, TST-50
TEST(RaceTest, Race9InvalidationAfterTheFrameWasResolvedMakesTheFaultRetry) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  Read(*vm, 0);
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.RunTo("fault", HookPoint::kFrameToLock);
  {
    InvalidationGate& gate = vm->state().invalidations;
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
    gate.Begin();
    gate.AddRange(GfnRange::Of(Gfn(kPage), 1));
    gate.End();
  }
  const uint64_t retries = RetriesOf(*vm, 0);
  threads.RunToEnd("fault");
  EXPECT_EQ(RetriesOf(*vm, 0), retries + 1);
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-04, TST-50
TEST(RaceTest, Race10RootWhoseLastReferenceGoesIsNotFoundAgain) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  Read(*vm, 0);
  auto& roots = const_cast<RootList&>(vm->state().tdp.roots());
  bool found = true;
  Interleaving threads;
  threads.Add("get", [&] {
    found = static_cast<bool>(roots.First(RootFilter::kAll, -1));
  });
  threads.Add("drop", [&] {
    MutexLock lock(vm->state().slots.slots_lock);
    vm->state().vcpus[0]->ReleaseRoot();
    vm->state().tdp.FastZapAll(nullptr);
  });
  threads.RunTo("get", HookPoint::kRootFoundToGet);
  threads.RunToEnd("drop");
  threads.RunToEnd("get");
  EXPECT_FALSE(found) << "its count was 0";
}

// Covers: TDP-56, TST-50
TEST(RaceTest, Race11BitSetDuringAProtectionForGoodStays) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 2);
  const SpteFormat& format = vm->state().tdp.format();
  Write(*vm, kPageGpa);
  Read(*vm, kPageGpa, 1);  // both vCPUs load their root
  // D stays set, so that the entry does not count as volatile.
  EntryOf(*vm, Gfn(kPage), Level::k4K).FetchAnd(~format.accessed_mask());
  bool changed = false;
  Interleaving threads;
  threads.Add("protect", [&] {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    changed = vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(kPage), Level::k4K);
  });
  threads.RunTo("protect", HookPoint::kSnapshotToStore);
  vm->state().vcpus[1]->tlb().FlushAll();
  Read(*vm, kPageGpa, 1);
  threads.RunToEnd("protect");
  EXPECT_TRUE(changed);
  const Spte spte = SpteOf(vm->state(), Gfn(kPage));
  EXPECT_TRUE(format.IsAccessed(spte));
  EXPECT_FALSE(spte.IsWritable());
  EXPECT_FALSE(format.IsMmuWritable(spte));
}

// The other direction: a small page is accessed after a recovery has read its
// entry and before the entry is frozen.
// Covers: TDP-52, SPTE-27, TST-50
TEST(RaceTest, Race11BitSetDuringARecoveryIsInTheHugeLeaf) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(0), k2MPages));
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  ASSERT_TRUE(
      vm->Age(GfnRange::Of(Gfn(0), k2MPages), AgeMode::kTestAndClear, nullptr)
          .ok());
  RecoverOutcome outcome;
  Interleaving threads;
  threads.Add("recover",
              [&] { outcome = Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  threads.RunTo("recover", HookPoint::kChosenToLink);
  vm->state().vcpus[1]->tlb().FlushAll();
  Read(*vm, kPageGpa, 1);
  threads.RunToEnd("recover");
  EXPECT_EQ(outcome.to_2m_count, 1u);
  const Spte huge = SpteOf(vm->state(), Gfn(0));
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_TRUE(vm->state().tdp.format().IsAccessed(huge));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-03, TLB-05, TLB-08, TST-50
TEST(RaceTest, Race12WriteThroughAStaleTlbIsOverBeforeTheClearReturns) {
  auto vm = MakeLoggingVm();
  Write(*vm, kPageGpa, 1);  // the TLB has the page writable
  Interleaving threads;
  threads.Add("harvest", [&] { HarvestSlot(*vm); });
  threads.RunTo("harvest", HookPoint::kProtectToFlush);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsWritable());
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  Write(*vm, kPageGpa, 9);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken) << "the TLB still allows it";
  threads.RunToEnd("harvest");
  // The copy after the clear contains the 9. Writes after the clear are in the
  // log.
  EXPECT_EQ(Memory(*vm, kPageGpa), 9u);
  EXPECT_FALSE(Contains(SealAndList(*vm, 0), kPage));
  Write(*vm, kPageGpa, 10);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken + 1);
  EXPECT_TRUE(Contains(SealAndList(*vm, 0), kPage));
}

// The deletion publishes the invalid slot while a fault still holds the slot
// that it found before. The deletion waits for the fault, which maps the page,
// and then zaps the page.
// Covers: SLOT-24, SLOT-25, TST-50
TEST(RaceTest, Race13DeleteWaitsForTheFaultThatFoundTheSlotAndZapsItsPage) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, 1);
  Read(*vm, kGiB);
  AccessOutcome outcome = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("fault", [&] { outcome = Write(*vm, kPageGpa, 7); });
  threads.Add("delete", [&] { Delete(*vm, 0); });
  threads.RunTo("fault", HookPoint::kSlotToFault);
  threads.RunTo("delete", HookPoint::kGracePeriod);
  EXPECT_TRUE(SlotOf(*vm, Gfn(kPage)).invalid());
  threads.StartTo("delete", HookPoint::kWriteLocked);  // about to zap
  threads.RunToEnd("fault");
  EXPECT_EQ(outcome, AccessOutcome::kDone);
  threads.WaitUntilThere("delete");
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(kPage)).IsPresent());
  threads.RunToEnd("delete");
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsPresent());
  EXPECT_EQ(Read(*vm, kPageGpa), AccessOutcome::kEmulated);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// One change of the memslots has published its set and waits for the readers of
// the old one. Another change begins only after the first has ended.
// Covers: SLOT-24
TEST(RaceTest, TwoChangesOfMemslotsComeOneAfterTheOther) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  MemslotTable& slots = vm->state().slots;
  const auto generation = [&] {
    RcuReadGuard rcu;
    return slots.Active(0).generation();
  };
  const uint64_t before = generation();
  Interleaving threads;
  threads.Add("first", [&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(1, kGiB, 2 * kMiB)).ok());
  });
  threads.Add("second", [&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(2, 2 * kGiB, 2 * kMiB)).ok());
  });
  threads.RunTo("first", HookPoint::kGracePeriod);
  if (slots.slots_lock.TryLock()) {
    slots.slots_lock.Unlock();
    ADD_FAILURE() << "the first does not hold slots_lock";
  }
  threads.Start("second");
  for (int i = 0; i < 1000; ++i) {
    ASSERT_FALSE(threads.HasEnded("second"));
    std::this_thread::yield();
  }
  EXPECT_EQ(CountOf(threads.Trace("second"), HookPoint::kGracePeriod), 0);
  EXPECT_EQ(generation(), kGenerationInProgress | before);
  threads.RunToEnd("first");
  threads.WaitForEnd("second");
  EXPECT_EQ(generation(), before + 4);
  EXPECT_EQ(vm->Memslots().size(), 3u);
}

// The other order: the fault finds the invalid slot, and retries until the slot
// is gone. It maps nothing, and does not treat the page as MMIO while the slot
// is there.
// Covers: SLOT-25, PF-20
TEST(RaceTest, Race13FaultThatFindsTheInvalidCopyWaitsUntilItIsGone) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, 1);
  Read(*vm, kGiB);
  AccessOutcome outcome = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("fault", [&] { outcome = Write(*vm, kPageGpa, 7); });
  threads.Add("delete", [&] { Delete(*vm, 0); });
  threads.RunTo("delete", HookPoint::kWriteLocked);
  threads.RunTo("fault", HookPoint::kSlotToFault);
  const uint64_t retries = RetriesOf(*vm, 0);
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(RetriesOf(*vm, 0), retries + 1);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsPresent());
  threads.Start("delete");
  threads.RunToEnd("fault");
  threads.WaitForEnd("delete");
  EXPECT_EQ(outcome, AccessOutcome::kEmulated);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsPresent());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-50, SPTE-46, TST-50
TEST(RaceTest, Race14AndOnAFrozenEntryLeavesItFrozen) {
  auto vm = MakeSplitVm();
  SpteSlot& entry = EntryOf(*vm, Gfn(3), Level::k4K);
  Interleaving threads;
  threads.Add("protect", [&] { WriteProtect(*vm, GfnRange::Of(Gfn(3), 1)); });
  threads.Add("recover", [&] { Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  threads.RunTo("protect", HookPoint::kEntryToAnd);
  threads.RunToEnd("recover");
  RcuReadGuard rcu;  // the protecting thread's RCU section keeps the table
  EXPECT_EQ(entry.Load(), Spte::Frozen());
  threads.RunToEnd("protect");
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
}

// A huge entry may become a table, so it is protected by compare-exchange. An
// aging has changed the entry since it was read: the second try succeeds.
// Covers: TDP-50, TST-50
TEST(RaceTest, Race14AHugeEntryThatChangedIsProtectedAtTheSecondTry) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)});
  Write(*vm, 0);
  SpteSlot& entry = EntryOf(*vm, Gfn(0), Level::k2M);
  const uint64_t accessed = vm->state().tdp.format().accessed_mask();
  const Spte before = entry.Load();
  ASSERT_TRUE(before.IsWritable());
  bool changed = false;
  Interleaving threads;
  threads.Add("protect", [&] {
    changed = WriteProtect(*vm, GfnRange::Of(Gfn(0), k2MPages));
  });
  threads.RunTo("protect", HookPoint::kSnapshotToExchange);
  entry.FetchAnd(~accessed);
  threads.RunToEnd("protect");
  EXPECT_TRUE(changed);
  EXPECT_EQ(entry.Load(), before.Without(accessed).Without(spte_bits::kWrite));
}

// Covers: AGE-13, TST-50
TEST(RaceTest, Race15PageZappedWhileItIsAgedCountsAsYoungAndStaysZapped) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1));
  absl::StatusOr<AgeResult> aged;
  Interleaving threads;
  threads.Add("age", [&] {
    aged = vm->Age(GfnRange::Of(Gfn(0), 64), AgeMode::kTestAndClear, nullptr);
  });
  threads.RunTo("age", HookPoint::kAgeToExchange);
  ZapLeafs(*vm, GfnRange::Of(Gfn(kPage), 1));
  threads.RunToEnd("age");
  ASSERT_TRUE(aged.ok());
  EXPECT_EQ(aged->young_page_count, 1u);
  EXPECT_EQ(EntryOf(*vm, Gfn(kPage), Level::k4K).Load(), Spte::Initial());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-14
TEST(RaceTest, FastFaultGivesUpAfterItsFifthLostExchange) {
  auto vm = MakeLoggingVm();
  SpteSlot& entry = EntryOf(*vm, Gfn(kPage), Level::k4K);
  const SpteFormat& format = vm->state().tdp.format();
  const uint64_t fast = vm->VcpuStats()[0].pf_fast;
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  for (int lost = 0; lost < 5; ++lost) {
    threads.RunTo("fault", HookPoint::kFastFaultToExchange);
    const Spte spte = entry.Load();
    entry.Store(format.IsAccessed(spte) ? format.WithoutAccessed(spte)
                                        : format.WithAccessed(spte));
  }
  threads.RunTo("fault", HookPoint::kFrameToLock);  // the slow path
  EXPECT_EQ(CountOf(threads.Trace("fault"), HookPoint::kFastFaultToExchange),
            5);
  threads.RunToEnd("fault");
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, fast);
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_TRUE(Contains(SealAndList(*vm, 0), kPage));
}

// The small page 5 is mapped and clean, and the VM uses PML.
std::unique_ptr<Vm> MakeCpuLoggingVm() {
  auto vm = MakePmlVm({Slot(0, 0, 2 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1));
  EXPECT_TRUE(StartLog(*vm, {}, nullptr).ok());
  return vm;
}

// The page's D bit is set, and the page is only in the PML buffer. A seal that
// did not wait for the vCPU's exit would not list it.
// Covers: DL-31
TEST(RaceTest, Race31SealWaitsForTheExitOfAVcpuThatHasSetD) {
  auto vm = MakeCpuLoggingVm();
  Interleaving threads;
  threads.Add("vcpu", [&] {
    vm->state().vcpus[0]->EnterGuest();
    Write(*vm, kPageGpa, 7);
    vm->state().vcpus[0]->ExitGuest();
  });
  std::vector<uint64_t> sealed;
  threads.Add("seal", [&] { sealed = SealAndList(*vm, 0); });
  threads.RunTo("vcpu", HookPoint::kLogToDrain);
  threads.RunTo("seal", HookPoint::kKickToWait);
  threads.Start("seal");
  EXPECT_FALSE(threads.EndsSoon("seal"));
  threads.RunToEnd("vcpu");
  threads.WaitForEnd("seal");
  EXPECT_TRUE(Contains(sealed, kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A clear of an older epoch comes between the D bit and the drain. The entry
// stays in the PML buffer, so the page is reported once more, and the next
// write sets D again.
// Covers: DL-15
TEST(RaceTest, Race31ClearBetweenDAndDrainReportsOnceMore) {
  auto vm = MakeCpuLoggingVm();
  Vcpu& vcpu = *vm->state().vcpus[0];
  Write(*vm, kPageGpa, 6);
  uint64_t epoch = 0;
  ASSERT_TRUE(Contains(SealAndList(*vm, 0, &epoch), kPage));
  // The clear has cleared D, and the page is not acknowledged.
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    vm->state().tdp.ClearDirtyMasked(lock, 0, Gfn(0), uint64_t{1} << kPage,
                                     nullptr);
  }
  vcpu.tlb().FlushAll();
  vcpu.EnterGuest();
  Write(*vm, kPageGpa, 7);
  ASSERT_EQ(vcpu.pml()->count(), 1);
  const uint64_t npages = 2 * kMiB / kPageSize;
  ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, npages, MaskOf(npages, {kPage}),
                              nullptr)
                  .ok());
  EXPECT_EQ(AuditFindings(*vm), "");
  Write(*vm, kPageGpa, 8);
  EXPECT_EQ(vcpu.pml()->count(), 1) << "drained by the flush, and noted again";
  vcpu.ExitGuest();
  EXPECT_TRUE(Contains(SealAndList(*vm, 0), kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 8u);
}

// The vCPU's cache has no tables. So the fault must fill it, and look up its
// slot again.
// Covers: PF-04
TEST(RaceTest, FaultFindsSlotTopsUpFindsSlotAndFrameLocksMapsUnlocks) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  ASSERT_TRUE(vm->state().vcpus[0]->EnsureRoot().ok());
  vm->state().vcpus[0]->table_cache().Clear();
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, 9 * kPageSize, 7); });
  threads.RunToEnd("fault");
  std::vector<HookPoint> steps;
  for (const HookPoint point : threads.Trace("fault")) {
    // Equal steps in a row (one for each table and the leaf) count once.
    if (point != HookPoint::kWalkToTable &&
        point != HookPoint::kAnnounceToLook &&
        point != HookPoint::kBitToSummary && point != HookPoint::kFaultToLook &&
        (steps.empty() || steps.back() != point)) {
      steps.push_back(point);
    }
  }
  EXPECT_EQ(
      steps,
      (std::vector<HookPoint>{
          HookPoint::kSlotToFault, HookPoint::kTopUp, HookPoint::kSlotToFault,
          HookPoint::kSequenceToFrame, HookPoint::kFrameToLock,
          HookPoint::kReadLocked, HookPoint::kSnapshotToExchange,
          HookPoint::kMarkToInstall, HookPoint::kSnapshotToExchange,
          HookPoint::kLeafToForget, HookPoint::kUnlock}));
}

// Covers: TDP-25, TDP-42
TEST(RaceTest, FaultThatLosesTheLinkOfATableRetriesAndLeaksNothing) {
  RcuBarrier();  // for the tables of tests before
  const uint64_t tables_at_first = TablePool::Process().tables_out();
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB)}, 2);
  Read(*vm, 0, 0);
  Read(*vm, 0, 1);
  const uint64_t gpa = 4 * kMiB;  // a region without a table
  const uint64_t tables = vm->Stats().table_pages;
  Interleaving threads;
  threads.Add("loser", [&] { Write(*vm, gpa, 7, 0); });
  threads.RunTo("loser", HookPoint::kSnapshotToExchange);
  Write(*vm, gpa + kPageSize, 8, 1);
  const uint64_t retries = RetriesOf(*vm, 0);
  threads.RunToEnd("loser");
  EXPECT_EQ(RetriesOf(*vm, 0), retries + 1);
  EXPECT_EQ(vm->Stats().table_pages, tables + 1);
  EXPECT_EQ(Memory(*vm, gpa), 7u);
  EXPECT_EQ(Memory(*vm, gpa + kPageSize), 8u);
  EXPECT_EQ(AuditFindings(*vm), "");
  vm.reset();
  RcuBarrier();
  EXPECT_EQ(TablePool::Process().tables_out(), tables_at_first);
}

}  // namespace
}  // namespace mmu::testing
