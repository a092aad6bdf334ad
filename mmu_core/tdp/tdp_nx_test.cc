// The NX huge page mitigation.

#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::EntryOf;
using ::mmu::testing::Exec;
using ::mmu::testing::FaultOn;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k1GPages;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MapInto;
using ::mmu::testing::Read;
using ::mmu::testing::Recover;
using ::mmu::testing::Slot;
using ::mmu::testing::Split;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Write;
using ::mmu::testing::ZapLeafs;

constexpr uint64_t k2MiB = 2 * kMiB;

// The three formats that VMs run on.
struct Format {
  const char* name;
  EntryFormat format;
  VmConfig::AdBits ad_bits;
};

class TdpNxTest : public ::testing::TestWithParam<Format> {
 protected:
  TdpNxTest() { EXPECT_TRUE(parameters_.SetNxHugePages("force").ok()); }

  std::unique_ptr<Vm> Make(uint64_t size_bytes, Level host_page_level) {
    VmConfig config;
    config.format = GetParam().format;
    config.ad_bits = GetParam().ad_bits;
    config.vcpu_count = 2;
    config.memslots = {
        Slot(0, 0, size_bytes, host_page_level, BackingKind::kMetadataOnly)};
    return MakeVmFrom(config, parameters_);
  }
  static bool Executable(const Vm& vm, uint64_t gfn) {
    return vm.state().tdp.format().Allows(SpteOf(vm.state(), Gfn(gfn)),
                                          AccessKind::kExec);
  }
  static uint64_t SplitsFrom(const Vm& vm, Level from) {
    return vm.Stats().Splits(from, SplitTrigger::kNx);
  }

  NxParameters parameters_{ItlbMultihit::kNo};
};

INSTANTIATE_TEST_SUITE_P(
    Formats, TdpNxTest,
    ::testing::Values(Format{"Ept", EntryFormat::kEpt, VmConfig::AdBits::kOn},
                      Format{"EptWithoutAd", EntryFormat::kEpt,
                             VmConfig::AdBits::kOff},
                      Format{"Npt", EntryFormat::kNpt, VmConfig::AdBits::kOn}),
    [](const auto& format) { return format.param.name; });

// Covers: SPTE-17
TEST_P(TdpNxTest, HugeLeafsAreNotExecutableAndSmallOnesAre) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Read(*vm, 0);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_FALSE(Executable(*vm, 0));
  const uint64_t bits = SpteOf(vm->state(), Gfn(0)).bits();
  if (GetParam().format == EntryFormat::kNpt) {
    EXPECT_NE(bits & uint64_t{1} << 63, 0u) << "NX";
  } else {
    EXPECT_EQ(bits & (uint64_t{1} << 2 | uint64_t{1} << 10), 0u) << "X, XU";
  }
  EXPECT_EQ(Exec(*vm, k2MiB), AccessOutcome::kDone);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(k2MPages)), Level::k4K);
  EXPECT_TRUE(Executable(*vm, k2MPages));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST_P(TdpNxTest, WithoutTheMitigationHugeLeafsAreExecutable) {
  ASSERT_TRUE(parameters_.SetNxHugePages("off").ok());
  auto vm = Make(2 * kMiB, Level::k2M);
  EXPECT_EQ(Exec(*vm, 0), AccessOutcome::kDone);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_TRUE(Executable(*vm, 0));
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 0u);
}

// Covers: PF-30, SPTE-51
TEST_P(TdpNxTest, AFetchWantsAHugePageAndGetsASmallOne) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Read(*vm, k2MiB);  // loads a root
  PageFault fault = FaultOn(*vm, Gfn(3), AccessKind::kExec);
  TableCache cache(vm->state().pool);
  EXPECT_EQ(MapInto(*vm, *vm->state().vcpus[0]->root(), fault, cache),
            FaultResult::kFixed);
  EXPECT_EQ(fault.req_level, Level::k2M);
  EXPECT_EQ(fault.goal_level, Level::k4K);
  EXPECT_TRUE(fault.huge_page_disallowed);
}

// In a slot with small host pages the mitigation gives up no huge page.
// Covers: SPTE-51
TEST_P(TdpNxTest, WhereNoHugePageIsPossibleNoneIsListed) {
  auto vm = Make(4 * kMiB, Level::k4K);
  Exec(*vm, 0);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 0u);
  EXPECT_TRUE(Executable(*vm, 0));
}

// A fault may make several tables. Those at or below the largest possible page
// size are listed, one entry per table, also below a 1G page.
// Covers: SPTE-51, STAT-12
TEST_P(TdpNxTest, EachTableInPlaceOfAHugePageIsListedOnce) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Exec(*vm, 0);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 1u) << "not the tables above";
  Exec(*vm, kPageSize);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 1u);
  Exec(*vm, k2MiB);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 2u);

  auto big = Make(2 * kGiB, Level::k1G);
  Exec(*big, kGiB);
  EXPECT_EQ(big->Stats().nx_lpage_splits, 2u) << "a 1G and a 2M page given up";
  EXPECT_EQ(AuditFindings(*vm), "");
  EXPECT_EQ(AuditFindings(*big), "");
}

// Covers: SPTE-51, SPTE-26
TEST_P(TdpNxTest, AFetchFromAMappedHugePageSplitsItInPlace) {
  auto vm = Make(kGiB, Level::k1G);
  Write(*vm, 0);
  ASSERT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k1G);
  const uint64_t flushes = FlushesOf(*vm);
  EXPECT_EQ(Exec(*vm, 5 * kPageSize), AccessOutcome::kDone);
  EXPECT_EQ(SplitsFrom(*vm, Level::k1G), 1u);
  EXPECT_EQ(SplitsFrom(*vm, Level::k2M), 1u);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 2u);
  EXPECT_EQ(vm->Stats().pages_2m, 511u);
  EXPECT_EQ(vm->Stats().pages_4k, 512u) << "the others stay mapped";
  for (const uint64_t gfn : {0, 5, 511}) EXPECT_TRUE(Executable(*vm, gfn));
  EXPECT_FALSE(Executable(*vm, k2MPages)) << "2M pages are huge still";
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-26
TEST_P(TdpNxTest, AnEagerSplitMakesSmallPagesExecutableAgain) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  ASSERT_EQ(LevelOf(vm->state(), Gfn(9)), Level::k4K);
  EXPECT_TRUE(Executable(*vm, 9));
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 0u) << "nobody executed";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A split under mmu_lock in write mode, as for a clear. Whatever state the huge
// leaf is in, each child translates like it and has its other bits. The only
// exception: with the mitigation, small pages may be executed.
// Covers: SPTE-26, TDP-60
TEST_P(TdpNxTest, InWriteModeEachChildTranslatesLikeItsParent) {
  for (const bool mitigated : {false, true}) {
    ASSERT_TRUE(parameters_.SetNxHugePages(mitigated ? "force" : "off").ok());
    for (const Level level : {Level::k2M, Level::k1G}) {
      const Level small = ChildOf(level);
      constexpr uint64_t kStates = 4;
      auto vm = Make(kStates * BytesPer(level), level);
      const SpteFormat& format = vm->state().tdp.format();
      for (uint64_t i = 0; i < kStates; ++i) Write(*vm, i * BytesPer(level));
      vm->state().vcpus[0]->tlb().FlushAll();
      const auto entry = [&](uint64_t i) -> SpteSlot& {
        return EntryOf(*vm, Gfn(i * PagesPer(level)), level);
      };
      const std::vector<Spte> parents = {
          entry(0).Load(),
          entry(1).Load().Without(spte_bits::kWrite),
          format.WithoutMmuWrite(entry(2).Load()).Without(format.dirty_mask()),
          format.WithoutAccessed(entry(3).Load()),
      };
      for (uint64_t i = 0; i < kStates; ++i) {
        ASSERT_TRUE(parents[i].IsPresentLeaf(level));
        entry(i).Store(parents[i]);
      }

      TableCache cache(vm->state().pool);
      ASSERT_TRUE(cache.TopUp(kStates).ok());
      {
        MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
        const SplitOutcome outcome = vm->state().tdp.Split(
            lock, 0, GfnRange::Of(Gfn(0), kStates * PagesPer(level)), small,
            SplitTrigger::kClear, cache, /*deadline_nanos=*/0, nullptr);
        EXPECT_EQ(outcome.split_2m_count + outcome.split_1g_count,
                  int64_t{kStates});
      }

      // The rights, which an aged leaf without A/D bits has saved elsewhere.
      const auto allows = [&](Spte spte, AccessKind kind) {
        return format.Allows(format.IsAccessTracked(spte)
                                 ? format.WithAccessRestored(spte)
                                 : spte,
                             kind);
      };
      // All bits but the three things that a split changes.
      const auto kept = [&](Spte spte) {
        return format.WithoutExecute(spte).bits() &
               ~(spte_bits::kAddress | spte_bits::kPageSize);
      };
      for (uint64_t i = 0; i < kStates; ++i) {
        const Spte parent = parents[i];
        for (uint64_t page = 0; page < PagesPer(level);
             page += PagesPer(small)) {
          const Gfn gfn(i * PagesPer(level) + page);
          const Spte child = EntryOf(*vm, gfn, small).Load();
          ASSERT_TRUE(child.IsPresentLeaf(small)) << gfn;
          ASSERT_EQ(child.pfn(), parent.pfn() + page) << gfn;
          for (const AccessKind kind :
               {AccessKind::kRead, AccessKind::kWrite}) {
            ASSERT_EQ(allows(child, kind), allows(parent, kind)) << gfn;
          }
          ASSERT_EQ(allows(child, AccessKind::kExec),
                    small == Level::k4K || !mitigated)
              << gfn;
          ASSERT_EQ(kept(child), kept(parent)) << gfn;
        }
      }
      EXPECT_EQ(AuditFindings(*vm), "");
    }
  }
}

// An aged leaf without A/D bits keeps its permissions in other bits; a split
// must find them there.
TEST_P(TdpNxTest, AgedPagesSplitToExecutableOnesToo) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Read(*vm, 0);
  ASSERT_TRUE(
      vm->Age(GfnRange::Of(Gfn(0), k2MPages), AgeMode::kTestAndClear, nullptr)
          .ok());
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  // This vCPU's TLB has no entry for the page.
  EXPECT_EQ(Read(*vm, 9 * kPageSize, /*vcpu=*/1), AccessOutcome::kDone);
  EXPECT_TRUE(Executable(*vm, 9));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-27
TEST_P(TdpNxTest, RecoveredHugePagesAreNotExecutable) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  ASSERT_TRUE(Executable(*vm, 9));
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)).to_2m_count, 1u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(9)), Level::k2M);
  EXPECT_FALSE(Executable(*vm, 9));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-52, PF-32
TEST_P(TdpNxTest, AReadBesideExecutedPagesStaysSmall) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Exec(*vm, 0);
  EXPECT_EQ(Read(*vm, 7 * kPageSize), AccessOutcome::kDone);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(7)), Level::k4K);
  EXPECT_TRUE(Executable(*vm, 0)) << "its table is still there";
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 1u);
  EXPECT_EQ(Read(*vm, k2MiB), AccessOutcome::kDone);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(k2MPages)), Level::k2M)
      << "where nobody executes, huge";
}

// Beside an executed page of 2M the goal level falls from 1G to 2M, and within
// that page to 4K. The frame is that of the mapped page.
// Covers: SPTE-52, PF-32
TEST_P(TdpNxTest, TheGoalFallsLevelByLevel) {
  auto vm = Make(kGiB, Level::k1G);
  Exec(*vm, 0);
  const auto map = [&](uint64_t gfn) {
    PageFault fault = FaultOn(*vm, Gfn(gfn), AccessKind::kRead);
    const Pfn wanted = fault.pfn;
    TableCache cache(vm->state().pool);
    EXPECT_EQ(MapInto(*vm, *vm->state().vcpus[0]->root(), fault, cache),
              FaultResult::kFixed);
    EXPECT_EQ(fault.req_level, Level::k1G);
    const Spte spte = SpteOf(vm->state(), Gfn(gfn));
    EXPECT_EQ(spte.pfn().value(),
              wanted.value() & ~(PagesPer(fault.goal_level) - 1));
    return fault.goal_level;
  };
  EXPECT_EQ(map(5 * k2MPages + 3), Level::k2M);
  EXPECT_EQ(map(7), Level::k4K);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-54
TEST_P(TdpNxTest, TheGaugeFallsWithTheTables) {
  auto vm = Make(8 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 8 * kMiB; gpa += k2MiB) Exec(*vm, gpa);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 4u);
  // Huge page recovery replaces every table, also one that is listed.
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)).to_2m_count, 1u);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 3u);
  vm->state().tdp.FastZapAll(nullptr);
  EXPECT_EQ(vm->Stats().nx_lpage_splits, 0u);
}

// Covers: TDP-40
TEST_P(TdpNxTest, ATableIsZappedOnlyWhereItStillHangs) {
  auto vm = Make(4 * kMiB, Level::k2M);
  Exec(*vm, 0);
  VmState& state = vm->state();
  SpteSlot& entry = EntryOf(*vm, Gfn(0), Level::k2M);
  const uint64_t flushes = FlushesOf(*vm);
  {
    RcuReadGuard rcu;
    ShadowPage* page = state.nx_huge_pages.of(MmuKind::kTdp).TakeOldest();
    ASSERT_NE(page, nullptr);
    // Huge page recovery replaces the table first.
    Recover(*vm, GfnRange::Of(Gfn(0), k2MPages));
    {
      MmuReadLocked lock(state.mmu_lock, LockOp::kRecover);
      EXPECT_FALSE(state.tdp.ZapNxTable(lock, *page));
    }
    EXPECT_TRUE(entry.Load().IsPresentLeaf(Level::k2M));
    EXPECT_EQ(FlushesOf(*vm), flushes + 1) << "that of the huge page";
    // Then another table hangs there.
    Exec(*vm, 0);
    MmuReadLocked lock(state.mmu_lock, LockOp::kRecover);
    EXPECT_FALSE(state.tdp.ZapNxTable(lock, *page));
  }
  EXPECT_TRUE(entry.Load().IsPresentTable(Level::k2M));

  {
    RcuReadGuard rcu;
    ShadowPage* page = state.nx_huge_pages.of(MmuKind::kTdp).TakeOldest();
    ASSERT_NE(page, nullptr);
    MmuReadLocked lock(state.mmu_lock, LockOp::kRecover);
    EXPECT_TRUE(state.tdp.ZapNxTable(lock, *page));
    EXPECT_FALSE(state.tdp.ZapNxTable(lock, *page)) << "once";
  }
  EXPECT_FALSE(entry.Load().IsPresent());
}

}  // namespace
}  // namespace mmu
