// Faults on stage-2 tables, and what undoes their mappings.

#include "mmu_core/stage2/stage2_fault.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/stage2/stage2_log.h"
#include "mmu_core/stage2/stage2_recover.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_world.h"

namespace mmu {
namespace {

using ::mmu::testing::Await;
using ::mmu::testing::LockTrace;
using ::mmu::testing::S2Mapping;
using ::mmu::testing::S2WorldOptions;
using ::mmu::testing::Stage2TestCpu;
using ::mmu::testing::Stage2World;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Protects all pages of the slot and flushes, as the start of a log does.
template <TableGeometry G>
void StartLog(Stage2World<G>& world) {
  world.SetLogging(true);
  {
    MmuWriteLocked lock(world.lock(), LockOp::kEnable);
    WriteProtectStage2(world.state(), lock, world.slot().range(), nullptr);
  }
  TlbFlushBatch batch(world.remote().Of(MmuKind::kTdp), FlushScope::kRange,
                      FlushReason::kWriteProtect);
  batch.FlushAlways(world.slot().range(), nullptr);
}

template <TableGeometry G>
class Stage2FaultGranuleTest : public ::testing::Test {};
using Granules = ::testing::Types<Arm4K, Arm16K, Arm64K>;
TYPED_TEST_SUITE(Stage2FaultGranuleTest, Granules);

// Covers: ARM-38
TYPED_TEST(Stage2FaultGranuleTest, TheLargestBlockInsideTheSlotIsMapped) {
  using G = TypeParam;
  const uint64_t block = PagesPer<G>(Level{2});
  const uint64_t granule = kGfnsPerGranule<G>;
  // The slot begins one granule before a block, and ends one behind it.
  Stage2World<G> world(
      {.pages = block + 2 * granule, .base_gfn = 4 * block - granule});
  for (const uint64_t gfn : {uint64_t{0}, 6 * granule, granule + block}) {
    EXPECT_EQ(world.Fault(world.At(gfn), AccessKind::kRead),
              FaultResult::kFixed);
  }
  EXPECT_THAT(
      world.Mappings(),
      ElementsAre(S2Mapping{0, 1, "rwxa"}, S2Mapping{granule, 2, "rwxa"},
                  S2Mapping{granule + block, 1, "rwxa"}));
}

// Covers: ARM-08
TYPED_TEST(Stage2FaultGranuleTest, AFirstMappingNeedsNoInvalidation) {
  using G = TypeParam;
  Stage2World<G> world;
  world.Fault(world.At(0), AccessKind::kWrite);
  EXPECT_EQ(world.remote().Snapshot().remote_tlb_flush_requests, 0u);
}

// Covers: ARM-36
TYPED_TEST(Stage2FaultGranuleTest,
           WhileLoggingPagesAreMappedAndOnlyWritesMark) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2})});
  world.slot().dirty_bitmap =
      std::make_shared<DirtyBitmap>(world.slot().npages, InitiallySet::kNo);
  world.SetLogging(true);
  world.Fault(world.At(0), AccessKind::kRead);
  world.Fault(world.At(granule), AccessKind::kWrite);
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 1, "rxa"},
                                            S2Mapping{granule, 1, "rwxa"}));
  for (uint64_t i = 0; i < 3 * granule; ++i) {
    EXPECT_EQ(world.slot().dirty_bitmap->Test(i),
              granule <= i && i < 2 * granule)
        << "page " << i;
  }
  // A write to the page that was read: more rights in place, and its marks.
  world.Fault(world.At(0), AccessKind::kWrite);
  EXPECT_TRUE(world.slot().dirty_bitmap->Test(granule - 1));
  EXPECT_THAT(world.Mappings(), Each(Field(&S2Mapping::rights, "rwxa")));
  EXPECT_EQ(world.remote().Snapshot().remote_tlb_flush_requests, 0u);
}

// A write to a protected block keeps only the granule that it writes. All
// others have to fault again, and are then mapped read-only.
// Covers: ARM-35
TYPED_TEST(Stage2FaultGranuleTest, AWriteToAProtectedBlockUnmapsItsNeighbours) {
  using G = TypeParam;
  constexpr int kPages = G::kEntriesPerTable;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2})});
  Stage2TestCpu<G> cpu(world);
  cpu.Access(world.At(0), AccessKind::kWrite);
  StartLog(world);
  cpu.Access(world.At(0), AccessKind::kRead);
  cpu.TakeFaults();
  const uint64_t before = world.tlbi().Count(TlbiKind::kIpa);
  cpu.Access(world.At(7 * granule), AccessKind::kWrite);
  EXPECT_EQ(cpu.TakeFaults(), 1);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa) - before, 1u);
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{7 * granule, 1, "rwxa"}));
  for (int i = 0; i < kPages; ++i) {
    cpu.Access(world.At(static_cast<uint64_t>(i) * granule), AccessKind::kRead);
  }
  EXPECT_EQ(cpu.TakeFaults(), kPages - 1);
  EXPECT_EQ(world.counters().Leafs(Level{1}), static_cast<uint64_t>(kPages));
}

// Covers: ARM-09
TYPED_TEST(Stage2FaultGranuleTest, WithBbmLevel2TheNeighboursStayMapped) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2}), .bbm = BbmLevel::k2});
  Stage2TestCpu<G> cpu(world);
  cpu.Access(world.At(0), AccessKind::kWrite);
  StartLog(world);
  cpu.TakeFaults();
  cpu.Access(world.At(7 * granule), AccessKind::kWrite);
  EXPECT_EQ(cpu.TakeFaults(), 1);
  const std::vector<S2Mapping> all = world.Mappings();
  ASSERT_THAT(all, SizeIs(G::kEntriesPerTable));
  for (const S2Mapping& m : all) {
    EXPECT_EQ(m.rights, m.gfn == 7 * granule ? "rwxa" : "rxa");
  }
}

// Covers: ARM-37
TYPED_TEST(Stage2FaultGranuleTest, AfterLoggingAFaultBringsTheBlockBack) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = 2 * PagesPer<G>(Level{2}),
                        .host_page_level = Level::k1G,
                        .tlbi_range = TlbiUnit::Ranges::kYes});
  Stage2TestCpu<G> cpu(world);
  world.SetLogging(true);
  const uint64_t other = PagesPer<G>(Level{2});
  cpu.Access(world.At(0), AccessKind::kWrite);
  cpu.Access(world.At(other), AccessKind::kWrite);
  world.SetLogging(false);
  const uint64_t tables = world.counters().Tables();
  cpu.Access(world.At(granule), AccessKind::kRead);
  // Pages that nobody touches stay small.
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 2, "rwxa"},
                                            S2Mapping{other, 1, "rwxa"}));
  EXPECT_EQ(world.counters().Tables(), tables - 1);
  EXPECT_GE(world.tlbi().Count(TlbiKind::kIpaRange), 1u);
  EXPECT_EQ(cpu.Try(world.At(0), AccessKind::kWrite),
            Stage2TestCpu<G>::Result::kDone);
}

// Only a page that lacks the access brings the block back.
// Covers: ARM-37
TYPED_TEST(Stage2FaultGranuleTest, APageThatAllowsTheAccessStaysSmall) {
  using G = TypeParam;
  for (const auto dirty_state : {Stage2Options::HardwareDirtyState::kNo,
                                 Stage2Options::HardwareDirtyState::kYes}) {
    const bool is_noted =
        dirty_state == Stage2Options::HardwareDirtyState::kYes;
    Stage2World<G> world(
        {.pages = PagesPer<G>(Level{2}),
         .hardware_access_flag = Stage2Options::HardwareAccessFlag::kYes,
         .hardware_dirty_state = dirty_state});
    world.SetLogging(true);
    world.Fault(world.At(0), AccessKind::kRead);
    world.SetLogging(false);
    const std::string rights = is_noted ? "rxad" : "rxa";
    for (const AccessKind kind : {AccessKind::kRead, AccessKind::kExec}) {
      EXPECT_EQ(world.Fault(world.At(0), kind), FaultResult::kSpurious);
    }
    EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 1, rights}));
    // The processor gives itself the right to write, where it notes writes.
    EXPECT_EQ(world.Fault(world.At(0), AccessKind::kWrite),
              is_noted ? FaultResult::kSpurious : FaultResult::kFixed);
    EXPECT_THAT(world.Mappings(),
                ElementsAre(is_noted ? S2Mapping{0, 1, rights}
                                     : S2Mapping{0, 2, "rwxa"}));
  }
}

TYPED_TEST(Stage2FaultGranuleTest, AnAgedPageStaysSmallIfHardwareSetsAf) {
  using G = TypeParam;
  using Af = Stage2Options::HardwareAccessFlag;
  for (const Af af : {Af::kNo, Af::kYes}) {
    Stage2World<G> world(
        {.pages = PagesPer<G>(Level{2}), .hardware_access_flag = af});
    world.SetLogging(true);
    world.Fault(world.At(0), AccessKind::kWrite);
    world.SetLogging(false);
    world.AgeAll();
    const bool stays = af == Af::kYes;
    EXPECT_EQ(world.Fault(world.At(0), AccessKind::kWrite),
              stays ? FaultResult::kSpurious : FaultResult::kFixed);
    EXPECT_THAT(world.Mappings(), ElementsAre(stays ? S2Mapping{0, 1, "rwx"}
                                                    : S2Mapping{0, 2, "rwxa"}));
  }
}

// At FEAT_BBM level 2, too: the block has other rights than the pages. A
// processor that walks at any time never has two translations of one address:
// until the TLBI it may use the table, to which it has cached a pointer.
// Covers: ARM-06, ARM-09
TYPED_TEST(Stage2FaultGranuleTest, ATableIsBrokenBeforeItsBlockIsMade) {
  using G = TypeParam;
  for (const BbmLevel bbm : {BbmLevel::k0, BbmLevel::k2}) {
    Stage2World<G> world({.pages = PagesPer<G>(Level{2}), .bbm = bbm});
    Stage2TestCpu<G> cpu(world);
    world.SetLogging(true);
    cpu.Access(world.At(0), AccessKind::kWrite);
    world.SetLogging(false);
    std::vector<int> seen;  // the level of the translation, 0: none
    {
      LockTrace trace([&](const LockTrace::Event& event) {
        if (event.point == HookPoint::kBreakToTlbi ||
            event.point == HookPoint::kTlbiToMake) {
          seen.push_back(cpu.Speculate(world.At(0)));
        }
      });
      EXPECT_EQ(world.Fault(world.At(kGfnsPerGranule<G>), AccessKind::kRead),
                FaultResult::kFixed);
    }
    EXPECT_THAT(seen, ElementsAre(1, 0));
    EXPECT_EQ(cpu.Speculate(world.At(0)), 2);
    EXPECT_EQ(cpu.Try(world.At(0), AccessKind::kWrite),
              Stage2TestCpu<G>::Result::kDone);
  }
}

// Covers: ARM-02
TYPED_TEST(Stage2FaultGranuleTest, TheLastMappingOfATableTakesTheTableWithIt) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.host_page_level = Level::k4K});
  world.Fault(world.At(0), AccessKind::kRead);
  world.Fault(world.At(granule), AccessKind::kRead);
  const uint64_t tables = world.counters().Tables();
  EXPECT_GE(tables, 1u);
  world.Unmap(GfnRange::Of(world.At(0), granule));
  EXPECT_EQ(world.counters().Tables(), tables);
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{granule, 1, "rwxa"}));
  world.Unmap(GfnRange::Of(world.At(granule), 1));  // a part of a granule
  EXPECT_EQ(world.counters().Tables(), 0u);
  EXPECT_THAT(world.Mappings(), IsEmpty());
}

// Covers: ARM-39
TYPED_TEST(Stage2FaultGranuleTest, WithRangesOneInvalidationUnmapsARange) {
  using G = TypeParam;
  constexpr uint64_t kPages = 30;
  for (const auto ranges : {TlbiUnit::Ranges::kNo, TlbiUnit::Ranges::kYes}) {
    Stage2World<G> world({.host_page_level = Level::k4K, .tlbi_range = ranges});
    const bool has_ranges = ranges == TlbiUnit::Ranges::kYes;
    for (uint64_t i = 0; i < kPages; ++i) {
      world.Fault(world.At(i * kGfnsPerGranule<G>), AccessKind::kRead);
    }
    // The last page takes the table with it, by the same instruction.
    world.Unmap(GfnRange::Of(world.At(0), kPages * kGfnsPerGranule<G>));
    EXPECT_EQ(world.counters().Tables(), 0u);
    EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpaRange), has_ranges ? 1u : 0u);
    EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), has_ranges ? 0u : kPages);
    EXPECT_EQ(world.tlbi().Count(TlbiKind::kVmid), 0u);
  }
}

// Covers: ARM-07
TYPED_TEST(Stage2FaultGranuleTest, AnAccessFlagFaultSetsTheFlagInPlace) {
  using G = TypeParam;
  using Af = Stage2Options::HardwareAccessFlag;
  for (const Af af : {Af::kNo, Af::kYes}) {
    Stage2World<G> world(
        {.host_page_level = Level::k4K, .hardware_access_flag = af});
    Stage2TestCpu<G> cpu(world);
    cpu.Access(world.At(0), AccessKind::kWrite);
    {
      MmuWriteLocked lock(world.lock(), LockOp::kAge);
      RcuReadGuard rcu;
      S2Cursor<G> c =
          world.state().CursorOver(GfnRange::Of(world.At(0), 1), Level{1});
      while (!c.IsPresentLeaf()) c.Next();
      ASSERT_TRUE(world.state().updater.ChangeRights(
          lock, c, c.old_spte().Without(s2_bits::kAccessFlag)));
    }
    TlbFlushBatch batch(world.remote().Of(MmuKind::kTdp), FlushScope::kRange,
                        FlushReason::kAge);
    batch.FlushAlways(world.slot().range(), nullptr);
    const uint64_t flushes =
        world.remote().Snapshot().remote_tlb_flush_requests;
    cpu.TakeFaults();
    cpu.Access(world.At(0), AccessKind::kWrite);
    EXPECT_EQ(cpu.TakeFaults(), af == Af::kNo ? 1 : 0);
    EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 1, "rwxa"}));
    EXPECT_EQ(world.remote().Snapshot().remote_tlb_flush_requests, flushes);
  }
}

// An access without AF, in a slot that logs, to a block that nothing has split.
// Covers: ARM-07, ARM-36
TYPED_TEST(Stage2FaultGranuleTest, AnAccessFlagFaultSplitsAndMarksNothing) {
  using G = TypeParam;
  for (const BbmLevel bbm : {BbmLevel::k0, BbmLevel::k2}) {
    Stage2World<G> world({.pages = PagesPer<G>(Level{2}), .bbm = bbm});
    world.slot().dirty_bitmap =
        std::make_shared<DirtyBitmap>(world.slot().npages, InitiallySet::kNo);
    Stage2TestCpu<G> cpu(world);
    cpu.Access(world.At(0), AccessKind::kWrite);
    StartLog(world);
    world.AgeAll();
    cpu.TakeFaults();
    const uint64_t flushes =
        world.remote().Snapshot().remote_tlb_flush_requests;
    cpu.Access(world.At(3), AccessKind::kRead);
    EXPECT_EQ(cpu.TakeFaults(), 1);
    EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 2, "rxa"}));
    EXPECT_EQ(world.remote().Snapshot().remote_tlb_flush_requests, flushes);
    // A page that was written, cleared of its mark, aged and read.
    cpu.Access(world.At(0), AccessKind::kWrite);
    world.slot().dirty_bitmap->TakeAll(
        0, world.slot().dirty_bitmap->word_count(), [](uint64_t, uint64_t) {});
    world.AgeAll();
    world.Fault(world.At(0), AccessKind::kRead);
    EXPECT_EQ(world.slot().dirty_bitmap->CountDirty(), 0u);
  }
}

// A fault meets an entry that another walker changes.
// Covers: ARM-05, ARM-04
TYPED_TEST(Stage2FaultGranuleTest, Race51AFaultMeetsALockedEntry) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2})});
  world.Fault(world.At(0), AccessKind::kWrite);
  StartLog(world);
  FaultResult other = FaultResult::kContinue;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kTlbiToMake) return;
      std::thread([&] {
        other = world.Fault(world.At(granule), AccessKind::kRead);
      }).join();
      EXPECT_THAT(world.Mappings(), IsEmpty());
    });
    EXPECT_EQ(world.Fault(world.At(0), AccessKind::kWrite),
              FaultResult::kFixed);
  }
  EXPECT_EQ(other, FaultResult::kRetry);
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 1, "rwxa"}));
}

// An unmapping takes the last entry of a table, and with it the table. A fault
// for a page of that table waits until the table is gone, and links another.
TYPED_TEST(Stage2FaultGranuleTest, Race52AFaultWaitsForATableThatGoes) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.host_page_level = Level::k4K});
  world.Fault(world.At(0), AccessKind::kRead);
  const uint64_t tables = world.counters().Tables();
  std::thread other;
  std::atomic<bool> mapped = false;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kSnapshotToExchange) return;
      EXPECT_EQ(event.mmu_lock, LockTrace::Held::kWrite);
      other = std::thread([&] {
        EXPECT_EQ(world.Fault(world.At(granule), AccessKind::kRead),
                  FaultResult::kFixed);
        mapped = true;
      });
      Await("the fault waits for mmu_lock",
            [&] { return world.lock().IsContended(); });
      EXPECT_FALSE(mapped);
    });
    world.Unmap(GfnRange::Of(world.At(0), granule));
  }
  other.join();
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{granule, 1, "rwxa"}));
  EXPECT_EQ(world.counters().Tables(), tables);
}

TYPED_TEST(Stage2FaultGranuleTest, RecoveryMakesWayForBlocks) {
  using G = TypeParam;
  const uint64_t granule = kGfnsPerGranule<G>;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2})});
  Stage2TestCpu<G> cpu(world);
  world.SetLogging(true);
  cpu.Access(world.At(0), AccessKind::kWrite);
  world.SetLogging(false);
  {
    MmuWriteLocked lock(world.lock(), LockOp::kRecover);
    const RecoverOutcome outcome =
        MakeWayForBlocks(world.state(), lock, world.slot(),
                         world.slot().range(), nullptr, HoldLimit());
    EXPECT_EQ(outcome.to_2m_count, 1u);
  }
  EXPECT_THAT(world.Mappings(), IsEmpty());
  EXPECT_EQ(cpu.Try(world.At(0), AccessKind::kRead),
            Stage2TestCpu<G>::Result::kFault);
  cpu.Access(world.At(granule), AccessKind::kRead);
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 2, "rwxa"}));
}

}  // namespace
}  // namespace mmu
