// Splitting blocks by chunk.

#include "mmu_core/stage2/stage2_split.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/stage2/stage2_log.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_world.h"

namespace mmu {
namespace {

using ::mmu::testing::LockTrace;
using ::mmu::testing::S2Mapping;
using ::mmu::testing::S2WorldOptions;
using ::mmu::testing::Stage2TestCpu;
using ::mmu::testing::Stage2World;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::SizeIs;

constexpr uint64_t kKib = uint64_t{1} << 10;
constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr uint64_t kGib = uint64_t{1} << 30;

template <TableGeometry G>
SplitOutcome SplitAll(Stage2World<G>& world, uint64_t chunk_bytes,
                      GfnRange range, Level target = Level{1}) {
  S2Cache<G> cache(S2Pool<G>::Process());
  MmuWriteLocked lock(world.lock(), LockOp::kSplit);
  return SplitStage2(
      world.state(), lock, range,
      {.target = target, .chunk_bytes = chunk_bytes, .limit = {}}, cache,
      nullptr);
}

template <TableGeometry G>
SplitOutcome SplitAll(Stage2World<G>& world, uint64_t chunk_bytes) {
  return SplitAll(world, chunk_bytes, world.slot().range());
}

// Covers: ARM-22
TEST(Stage2SplitTest, TheTablesForAChunkAreCounted) {
  EXPECT_EQ(TablesForSplit<Arm4K>(4 * kKib), 2u);
  EXPECT_EQ(TablesForSplit<Arm4K>(2 * kMib), 2u);
  EXPECT_EQ(TablesForSplit<Arm4K>(1 * kGib), 513u);
  EXPECT_EQ(TablesForSplit<Arm16K>(32 * kMib), 1u);
  EXPECT_EQ(TablesForSplit<Arm64K>(512 * kMib), 1u);
}

// Covers: ARM-24
TEST(Stage2SplitTest, AGibByChunksOf2MibTakes513Invalidations) {
  Stage2World<Arm4K> world({.pages = uint64_t{1} << 18});
  world.Fault(world.At(0), AccessKind::kRead);
  ASSERT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 3, "rwxa"}));
  const SplitOutcome split = SplitAll(world, 2 * kMib);
  EXPECT_EQ(split.split_1g_count, 1);
  EXPECT_EQ(split.split_2m_count, 512);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 513u);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kStage1), 513u);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kVmid), 0u);
  const std::vector<S2Mapping> all = world.Mappings();
  EXPECT_THAT(all, SizeIs(uint64_t{1} << 18));
  EXPECT_THAT(all, Each(Field(&S2Mapping::level, 1)));
}

// Covers: ARM-24
TEST(Stage2SplitTest, AGibByAChunkOf1GibTakesOneInvalidation) {
  Stage2World<Arm4K> world({.pages = uint64_t{1} << 18});
  world.Fault(world.At(0), AccessKind::kRead);
  // Counted as if it went level by level.
  const SplitOutcome split = SplitAll(world, 1 * kGib);
  EXPECT_EQ(split.split_1g_count, 1);
  EXPECT_EQ(split.split_2m_count, 512);
  EXPECT_EQ(world.counters().Splits(Level{2}, SplitTrigger::kRequest), 512u);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 1u);
  EXPECT_EQ(world.counters().Leafs(Level{1}), uint64_t{1} << 18);
  EXPECT_EQ(world.counters().Tables(), 1u + 512 + 0);
}

// Covers: ARM-24
TEST(Stage2SplitTest, EachBlockOf2MibTakesOneInvalidation) {
  Stage2World<Arm4K> world({.pages = 4 * 512, .host_page_level = Level::k2M});
  for (int i = 0; i < 4; ++i) world.Fault(world.At(512 * i), AccessKind::kRead);
  SplitAll(world, 2 * kMib);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 4u);
  EXPECT_EQ(world.counters().Leafs(Level{2}), 0u);
}

TEST(Stage2SplitTest, ASplitToBlocksOf2MibLeavesThoseAlone) {
  Stage2World<Arm4K> world({.pages = uint64_t{1} << 18});
  world.Fault(world.At(0), AccessKind::kRead);
  SplitAll(world, 1 * kGib, world.slot().range(), Level{2});
  EXPECT_EQ(world.counters().Leafs(Level{2}), 512u);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 1u);
}

// Covers: ARM-25
TEST(Stage2SplitTest, PagesKeepTheRightsOfTheirBlockAndLookYoung) {
  Stage2World<Arm4K> world({.pages = 512, .host_page_level = Level::k2M});
  world.Fault(world.At(0), AccessKind::kRead);
  {
    MmuWriteLocked lock(world.lock(), LockOp::kEnable);
    WriteProtectStage2(world.state(), lock, world.slot().range(), nullptr);
    RcuReadGuard rcu;
    S2Cursor<Arm4K> c =
        world.state().CursorOver(world.slot().range(), Level{2});
    while (!c.IsPresentLeaf()) c.Next();
    ASSERT_TRUE(world.state().updater.ChangeRights(
        lock, c, c.old_spte().Without(s2_bits::kAccessFlag)));
  }
  EXPECT_THAT(world.Mappings(), ElementsAre(S2Mapping{0, 2, "rx"}));
  SplitAll(world, 2 * kMib);
  EXPECT_THAT(world.Mappings(), Each(Field(&S2Mapping::rights, "rxa")));
}

// A guest that accesses a block during its break does not undo the split: when
// its fault gets mmu_lock, the pages are mapped.
// Covers: ARM-26
TEST(Stage2SplitTest, AFaultOfTheBreakDoesNotBringTheBlockBack) {
  Stage2World<Arm4K> world({.pages = 512, .host_page_level = Level::k2M});
  Stage2TestCpu<Arm4K> cpu(world);
  world.Fault(world.At(0), AccessKind::kRead);
  auto in_break = Stage2TestCpu<Arm4K>::Result::kDone;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kTlbiToMake) {
        in_break = cpu.Try(world.At(3), AccessKind::kWrite);
      }
    });
    SplitAll(world, 2 * kMib);
  }
  ASSERT_EQ(in_break, Stage2TestCpu<Arm4K>::Result::kFault);
  EXPECT_EQ(world.Fault(world.At(3), AccessKind::kWrite),
            FaultResult::kSpurious);
  EXPECT_EQ(world.counters().Leafs(Level{1}), 512u);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 1u);
}

// Covers: ARM-27
TEST(Stage2SplitTest, ASecondSplitHasNothingToDo) {
  Stage2World<Arm4K> world({.pages = 2 * 512, .host_page_level = Level::k2M});
  world.Fault(world.At(0), AccessKind::kRead);  // the other block is not mapped
  SplitAll(world, 2 * kMib);
  const SplitOutcome again = SplitAll(world, 2 * kMib);
  EXPECT_EQ(again.split_2m_count, 0);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 1u);
  EXPECT_EQ(world.counters().Leafs(Level{1}), 512u);
}

// Covers: ARM-23
TEST(Stage2SplitTest, TheLockIsDroppedForTheTablesOfEachChunk) {
  Stage2World<Arm4K> world({.pages = 8 * 512, .host_page_level = Level::k2M});
  for (int i = 0; i < 8; ++i) world.Fault(world.At(512 * i), AccessKind::kRead);
  LockTrace trace;
  SplitAll(world, 2 * kMib);
  // The cache is empty at first, and has one of its two tables left behind
  // every chunk.
  EXPECT_EQ(trace.CountOf(HookPoint::kTopUp), 8);
  for (const LockTrace::Event& event : trace.events()) {
    if (event.point != HookPoint::kTopUp) continue;
    EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing);
    EXPECT_FALSE(event.rcu);
  }
}

// Covers: ARM-29
TEST(Stage2SplitTest, WithoutTablesTheRestStaysAsItIs) {
  Stage2World<Arm4K> world({.pages = 4 * 512, .host_page_level = Level::k2M});
  for (int i = 0; i < 4; ++i) world.Fault(world.At(512 * i), AccessKind::kRead);
  TableBudget& budget = TableBudget::Process();
  const TableBudget::Use use = budget.Snapshot();
  budget.SetMax(use.in_use + use.in_grace_period + 3);
  const SplitOutcome split = SplitAll(world, 2 * kMib);
  budget.SetMax(0);
  EXPECT_EQ(split.split_2m_count, 2);
  EXPECT_EQ(split.limit_count, 1);
  EXPECT_EQ(split.next_gfn, world.At(2 * 512));
  EXPECT_EQ(world.counters().Leafs(Level{2}), 2u);
  EXPECT_EQ(world.counters().SplitFailures(SplitFailure::kLimit), 1u);
}

template <TableGeometry G>
class Stage2SplitGranuleTest : public ::testing::Test {};
using Granules = ::testing::Types<Arm4K, Arm16K, Arm64K>;
TYPED_TEST_SUITE(Stage2SplitGranuleTest, Granules);

// A processor that walks at any time never has two translations of one address.
// Covers: ARM-06
TYPED_TEST(Stage2SplitGranuleTest, ABlockIsBrokenBeforeItsTableIsMade) {
  using G = TypeParam;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2})});
  Stage2TestCpu<G> cpu(world);
  const Gfn page = world.At(kGfnsPerGranule<G> * 3);
  cpu.Access(page, AccessKind::kWrite);
  std::vector<std::string> seen;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kSnapshotToExchange) {
        seen.push_back("block " + std::to_string(cpu.Speculate(page)));
      } else if (event.point == HookPoint::kBreakToTlbi ||
                 event.point == HookPoint::kTlbiToMake) {
        seen.push_back("none " + std::to_string(cpu.Speculate(page)));
      }
    });
    SplitAll(world, BytesPer<G>(Level{2}));
  }
  EXPECT_THAT(seen, ElementsAre("block 2", "none 0", "none 0"));
  EXPECT_EQ(cpu.Speculate(page), 1);
  using Result = typename Stage2TestCpu<G>::Result;
  EXPECT_EQ(cpu.Try(page, AccessKind::kWrite), Result::kDone);
}

// The processor sets AF between the look at the block and the break. The table
// that was filled meanwhile goes back, and the block is split all the same.
// Covers: ARM-26
TYPED_TEST(Stage2SplitGranuleTest, ASplitThatLosesARaceIsRepeated) {
  using G = TypeParam;
  Stage2World<G> world(
      {.pages = PagesPer<G>(Level{2}),
       .hardware_access_flag = Stage2Options::HardwareAccessFlag::kYes});
  Stage2TestCpu<G> cpu(world);
  world.Fault(world.At(0), AccessKind::kRead);
  world.AgeAll();
  const uint64_t tables = world.counters().Tables();
  int attempts = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kSnapshotToExchange) return;
      if (++attempts == 1) {
        EXPECT_EQ(cpu.Try(world.At(0), AccessKind::kRead),
                  Stage2TestCpu<G>::Result::kDone);
      }
    });
    S2Cache<G> cache(S2Pool<G>::Process());
    const uint64_t out = S2Pool<G>::Process().tables_out();
    MmuWriteLocked lock(world.lock(), LockOp::kSplit);
    const SplitOutcome split = SplitStage2(
        world.state(), lock, world.slot().range(),
        {.chunk_bytes = BytesPer<G>(Level{2}), .limit = {}}, cache, nullptr);
    EXPECT_EQ(split.split_2m_count, 1);
    EXPECT_EQ(S2Pool<G>::Process().tables_out(),
              out + 1 + static_cast<uint64_t>(cache.count()));
  }
  EXPECT_EQ(attempts, 2);
  EXPECT_EQ(world.counters().SplitFailures(SplitFailure::kRaced), 1u);
  EXPECT_EQ(world.counters().Tables(), tables + 1);
  EXPECT_THAT(world.Mappings(), Each(Field(&S2Mapping::level, 1)));
}

// FEAT_BBM level 2: the block is not broken. An access in between may find two
// translations, and does not after the invalidation.
// Covers: ARM-09
TYPED_TEST(Stage2SplitGranuleTest, WithBbmLevel2ThePagesStayMapped) {
  using G = TypeParam;
  using Result = typename Stage2TestCpu<G>::Result;
  Stage2World<G> world({.pages = PagesPer<G>(Level{2}), .bbm = BbmLevel::k2});
  Stage2TestCpu<G> cpu(world);
  const Gfn page = world.At(kGfnsPerGranule<G> * 3);
  cpu.Access(page, AccessKind::kWrite);
  int conflicts = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kBreakToTlbi) return;
      EXPECT_EQ(cpu.Speculate(page), 1);
      conflicts += cpu.Try(page, AccessKind::kWrite) == Result::kConflict;
    });
    SplitAll(world, BytesPer<G>(Level{2}));
  }
  EXPECT_EQ(conflicts, 1);
  EXPECT_EQ(cpu.Try(page, AccessKind::kWrite), Result::kDone);
  EXPECT_EQ(world.tlbi().Count(TlbiKind::kIpa), 1u);
}

}  // namespace
}  // namespace mmu
