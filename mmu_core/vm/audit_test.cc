// Shows that the auditor can fail: each test breaks one invariant of a sound VM
// on purpose, and expects that the auditor reports exactly this invariant.

#include "mmu_core/vm/inspect/audit.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/stats/vm_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ClearLog;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Slot 0 has 4 MiB of small pages at 0, of which the pages 0 to 7 are mapped.
// Slot 1 has 4 MiB of 2 MiB pages at 8 MiB, of which the first is mapped.
class AuditTest : public ::testing::Test {
 protected:
  explicit AuditTest(VmConfig config = {}) {
    config.memslots = {Slot(0, 0, 4 * kMiB),
                       Slot(1, 8 * kMiB, 4 * kMiB, Level::k2M)};
    vm_ = MakeVmFrom(config);
    Touch(*vm_, GfnRange::Of(Gfn(0), 8));
    Write(*vm_, 8 * kMiB);
  }
  // Each test must have repaired the VM before it is destroyed.
  void TearDown() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  VmState& state() { return vm_->state(); }
  MmuCounters& counters() { return state().counters.of(MmuKind::kTdp); }
  Vcpu& vcpu() { return *state().vcpus[0]; }

  // "INV-n" of each finding.
  std::set<std::string> Broken() {
    std::set<std::string> names;
    for (const std::string& v : vm_->Audit().violations) {
      names.insert(v.substr(0, v.find(':')));
    }
    return names;
  }

  // The entry of `level` that covers `gfn`.
  SpteSlot& Entry(Gfn gfn, Level level) {
    RcuReadGuard rcu;
    SpteSlot* found = nullptr;
    for (TdpCursor c(vcpu().root()->table(), vcpu().root()->level(),
                     GfnRange::Of(gfn, 1), level);
         c.Valid(); c.Next()) {
      if (c.level() == level) found = &c.slot();
    }
    EXPECT_NE(found, nullptr);
    return *found;
  }

  // Stores `spte` in a slot until the end of the scope.
  class Patch {
   public:
    Patch(SpteSlot& slot, Spte spte)
        : slot_(slot), before_(slot.Exchange(spte)) {}
    ~Patch() { slot_.Store(before_); }

   private:
    SpteSlot& slot_;
    const Spte before_;
  };

  const SpteFormat& format() { return state().tdp.format(); }

  std::unique_ptr<Vm> vm_;
};

TEST_F(AuditTest, ASoundVmHasNoFindingsAndSaysWhatWasLookedAt) {
  const AuditReport report = vm_->Audit();
  EXPECT_TRUE(report.ok());
  EXPECT_THAT(report.violations, IsEmpty());
  EXPECT_EQ(report.leafs_checked, 9u);
  EXPECT_EQ(report.tables_checked, 3u);  // levels 3, 2 and 1
  EXPECT_EQ(report.tlb_entries_checked, 9u);
}

TEST_F(AuditTest, Inv1NoticesATableThatIsCountedButNotThere) {
  counters().AddTables(1);
  EXPECT_THAT(Broken(), ElementsAre("INV-1"));
  counters().AddTables(-1);
}

TEST_F(AuditTest, Inv1NoticesATableWhoseDescriptorIsWrong) {
  ShadowPage& page =
      *TablePool::DescriptorOf(TableOf(Entry(Gfn(0), Level::k2M).Load()));
  SpteSlot* const parent = page.parent;
  page.parent = nullptr;
  EXPECT_THAT(Broken(), ElementsAre("INV-1"));
  page.parent = parent;
}

TEST_F(AuditTest, Inv2NoticesEachPageCountThatIsOff) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    counters().AddLeafs(level, 1);
    EXPECT_THAT(Broken(), ElementsAre("INV-2"));
    EXPECT_THAT(AuditFindings(*vm_),
                HasSubstr(std::string(PageSizeName(level))));
    counters().AddLeafs(level, -1);
  }
}

// The sums over all MMUs are still right.
TEST(NestedAuditTest, Inv2NoticesALeafThatAnotherMmuHasCounted) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, 4 * kMiB)};
  auto vm = MakeVmFrom(config);
  Write(*vm, 0);
  EXPECT_EQ(AuditFindings(*vm), "");
  VmCounters& counters = vm->state().counters;
  counters.of(MmuKind::kTdp).AddLeafs(Level::k4K, -1);
  counters.of(MmuKind::kShadow).AddLeafs(Level::k4K, 1);
  EXPECT_EQ(counters.Leafs(Level::k4K), 1u);
  EXPECT_EQ(AuditFindings(*vm),
            "INV-2: pages_4k of the tdp MMU is 0, a walk finds 1\n"
            "INV-2: pages_4k of the shadow MMU is 1, a walk finds 0");
  counters.of(MmuKind::kTdp).AddLeafs(Level::k4K, 1);
  counters.of(MmuKind::kShadow).AddLeafs(Level::k4K, -1);
}

TEST_F(AuditTest, Inv3NoticesAFrozenEntryThatCanBeReached) {
  Patch patch(Entry(Gfn(100), Level::k4K), Spte::Frozen());
  EXPECT_THAT(Broken(), ElementsAre("INV-3"));
}

TEST_F(AuditTest, Inv3NoticesWritableWithoutMmuWritable) {
  SpteSlot& slot = Entry(Gfn(3), Level::k4K);
  Patch patch(slot, format().WithWrite(format().WithoutMmuWrite(slot.Load())));
  EXPECT_THAT(Broken(), ElementsAre("INV-3"));
}

TEST_F(AuditTest, Inv4NoticesAWrongFrame) {
  SpteSlot& slot = Entry(Gfn(3), Level::k4K);
  vcpu().tlb().FlushAll();
  Patch patch(slot, Spte(slot.Load().bits() + kPageSize));
  EXPECT_THAT(Broken(), ElementsAre("INV-4"));
}

TEST_F(AuditTest, Inv4NoticesALeafOutsideAllSlots) {
  Patch patch(Entry(Gfn(2048 - 512), Level::k2M),  // at 6 MiB
              format().MakeLeaf({.level = Level::k2M, .pfn = Pfn(1 << 18)}));
  counters().AddLeafs(Level::k2M, 1);
  EXPECT_THAT(Broken(), ElementsAre("INV-4"));
  counters().AddLeafs(Level::k2M, -1);
}

TEST_F(AuditTest, Inv4NoticesAPageLargerThanItsHostAllows) {
  Pfn pfn;
  {
    RcuReadGuard rcu;
    pfn = state().slots.Active(0).FindById(0)->PfnOf(Gfn(512));
  }
  Patch patch(Entry(Gfn(512), Level::k2M),
              format().MakeLeaf({.level = Level::k2M, .pfn = pfn}));
  counters().AddLeafs(Level::k2M, 1);
  EXPECT_THAT(Broken(), ElementsAre("INV-4"));
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("forbids"));
  counters().AddLeafs(Level::k2M, -1);
}

// The memslots have rmaps, as after the first shadow root.
class AuditOfNestedVmTest : public AuditTest {
 protected:
  explicit AuditOfNestedVmTest(Level max_page_level = Level::k1G)
      : AuditTest(NestedConfig(max_page_level)) {
    EXPECT_TRUE(state().PrepareForShadowRoot().ok());
  }

  static VmConfig NestedConfig(Level max_page_level) {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.max_page_level = max_page_level;
    return config;
  }

  const Memslot& HugeSlot() {
    RcuReadGuard rcu;
    return *state().slots.Active(0).FindById(1);
  }
};

// Covers: SHD-09
TEST_F(AuditOfNestedVmTest, Inv4AllowsAProtectedHugePageAroundAGuestsTable) {
  const Gfn table(2048 + 7);
  HugeSlot().lpage_info->Disallow(table);
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("forbids"));
  {
    MmuWriteLocked lock(state().mmu_lock, LockOp::kFault);
    RcuReadGuard rcu;
    EXPECT_TRUE(
        state().mmus.WriteProtectGfn(lock, HugeSlot(), table, Level::k4K));
  }
  vcpu().tlb().FlushAll();
  // The table has no shadow page, which INV-14 notices.
  EXPECT_THAT(Broken(), ElementsAre("INV-14"));
  HugeSlot().lpage_info->Allow(table);
}

class AuditOfSmallNestedVmTest : public AuditOfNestedVmTest {
 protected:
  AuditOfSmallNestedVmTest() : AuditOfNestedVmTest(Level::k4K) {}
};

TEST_F(AuditOfSmallNestedVmTest, Inv4NoticesAHugePageWithoutAGuestsTable) {
  const Gfn gfn(2048 + 512);
  Patch patch(
      Entry(gfn, Level::k2M),
      format().MakeLeaf({.level = Level::k2M, .pfn = HugeSlot().PfnOf(gfn)}));
  counters().AddLeafs(Level::k2M, 1);
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("forbids"));
  counters().AddLeafs(Level::k2M, -1);
}

TEST_F(AuditTest, Inv4NoticesAReadOnlySlotThatCanBeWritten) {
  MemslotConfig readonly = Slot(2, 16 * kMiB, kMiB);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  ASSERT_TRUE(vm_->SetMemslot(readonly).ok());
  Read(*vm_, 16 * kMiB);
  SpteSlot& slot = Entry(Gfn(4096), Level::k4K);
  Patch patch(slot,
              format().MakeLeaf({.pfn = slot.Load().pfn(), .write = true}));
  EXPECT_THAT(Broken(), ElementsAre("INV-4"));
}

TEST_F(AuditTest, Inv4NoticesAHostWritablePageThatTheHostLetsBeReadOnly) {
  const Gfn gfn(4096);
  ASSERT_TRUE(vm_->SetMemslot(Slot(2, 16 * kMiB, kMiB)).ok());
  Write(*vm_, 16 * kMiB);
  const auto set_access = [&](HostAccess access) {
    RcuReadGuard rcu;
    const Memslot* slot = state().slots.Active(0).FindByGfn(gfn);
    slot->backing->SetHostAccess(slot->HvaOf(gfn), kPageSize, access);
  };
  set_access(HostAccess::kReadOnly);
  EXPECT_THAT(Broken(), ElementsAre("INV-4"));
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("host-writable"));
  set_access(HostAccess::kReadWrite);
}

TEST_F(AuditTest, Inv5NoticesAWritablePageThatIsNotInTheLog) {
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  Write(*vm_, 3 * kPageSize);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm_, 0, &epoch), ElementsAre(3));
  EXPECT_EQ(AuditFindings(*vm_), "") << "sealed is dirty";
  ASSERT_TRUE(
      ClearAndDeliver(*vm_, 0, epoch, 0, 64, MaskOf(64, {3}), nullptr).ok());
  SpteSlot& slot = Entry(Gfn(3), Level::k4K);
  Patch patch(slot, format().WithWrite(slot.Load()));
  EXPECT_THAT(Broken(), ElementsAre("INV-5"));
}

TEST_F(AuditTest, Inv5NoticesAWritableHugePageWithACleanPageInIt) {
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  SpteSlot& slot = Entry(Gfn(2048), Level::k2M);
  Patch patch(slot, format().WithWrite(slot.Load()));
  EXPECT_THAT(Broken(), ElementsAre("INV-5"));
}

// The page is being copied; a write to it now would be in no later copy.
TEST_F(AuditTest, Inv5NoticesAWritablePageThatIsInFlightOnly) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  Write(*vm_, 3 * kPageSize);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm_, 0, &epoch), ElementsAre(3));
  ASSERT_TRUE(ClearLog(*vm_, 0, epoch, 0, 64, MaskOf(64, {3})).ok());
  SpteSlot& slot = Entry(Gfn(3), Level::k4K);
  Patch patch(slot, format().WithWrite(slot.Load()));
  EXPECT_THAT(Broken(), ElementsAre("INV-5"));
}

TEST_F(AuditTest, Inv10NoticesAPageThatMovedBehindTheLogsBack) {
  ASSERT_TRUE(StartLog(*vm_).ok());
  Write(*vm_, 3 * kPageSize);
  SealAndList(*vm_, 0);
  EXPECT_THAT(Broken(), IsEmpty());
  const std::vector<uint64_t> mask = MaskOf(64, {3});
  state().dirty_log.FindSlot(0)->Clear(/*flight=*/2, 0, mask);
  EXPECT_THAT(Broken(), Contains("INV-10"));
  state().dirty_log.FindSlot(0)->Return();
}

TEST_F(AuditTest, Inv6NoticesARightThatTheTablesDoNotGive) {
  SpteSlot& slot = Entry(Gfn(3), Level::k4K);
  {
    Patch patch(slot, slot.Load().Without(spte_bits::kWrite));
    EXPECT_THAT(Broken(), ElementsAre("INV-6"));
    // The auditor accepts the entry if a pending flush makes the vCPU drop it
    // before its next access.
    state().tlb.Flush(FlushScope::kVm, FlushReason::kWriteProtect, nullptr);
    EXPECT_THAT(Broken(), IsEmpty());
  }
  Read(*vm_, 0);
}

TEST_F(AuditTest, Inv6NoticesATranslationThatNothingMaps) {
  {
    Patch patch(Entry(Gfn(3), Level::k4K), Spte::Initial());
    counters().AddLeafs(Level::k4K, -1);
    EXPECT_THAT(Broken(), ElementsAre("INV-6"));
  }
  counters().AddLeafs(Level::k4K, 1);
}

TEST_F(AuditTest, Inv6NoticesATranslationToAnotherFrame) {
  TlbEntry entry = *vcpu().tlb().Lookup(PageNumber(3));
  entry.pfn += 1;
  vcpu().tlb().Insert(entry);
  EXPECT_THAT(Broken(), ElementsAre("INV-6"));
  vcpu().tlb().FlushAll();
}

TEST_F(AuditTest, Inv6NoticesATranslationOfAFormerRoot) {
  TlbEntry entry = *vcpu().tlb().Lookup(PageNumber(3));
  entry.root_id += 1;
  vcpu().tlb().Insert(entry);
  EXPECT_THAT(Broken(), ElementsAre("INV-6"));
  vcpu().tlb().FlushAll();
}

TEST_F(AuditTest, Inv6NoticesAPageThatMayBeExecutedNoMore) {
  const Spte leaf = Entry(Gfn(3), Level::k4K).Load();
  Patch patch(Entry(Gfn(3), Level::k4K), format().WithoutExecute(leaf));
  EXPECT_THAT(Broken(), ElementsAre("INV-6"));
}

// The request makes the vCPU let go of obsolete roots. The current one is none,
// so its translations stay.
TEST_F(AuditTest, Inv6NoticesWhatARequestToFreeRootsDoesNotDrop) {
  vcpu().gate().AddRequests(kFreeObsoleteRoots);
  {
    Patch patch(Entry(Gfn(3), Level::k4K),
                Entry(Gfn(3), Level::k4K).Load().Without(spte_bits::kWrite));
    EXPECT_THAT(Broken(), ElementsAre("INV-6"));
  }
  EXPECT_TRUE(vcpu().HandleRequests());
}

TEST_F(AuditTest, Inv6NoticesAFlushThatNobodyAskedFor) {
  vcpu().gate().AddFlush({});
  EXPECT_THAT(Broken(), ElementsAre("INV-6"));
  vcpu().gate().AddRequests(kTlbFlush);
  EXPECT_THAT(Broken(), IsEmpty());
  EXPECT_TRUE(vcpu().HandleRequests());
}

// The flush is of tables elsewhere: the vCPU keeps the pointer.
TEST_F(AuditTest, Inv6NoticesACachedTableThatAFlushDoesNotCover) {
  SpteSlot& link = Entry(Gfn(3), Level::k2M);
  vcpu().gate().AddFlush({.mmu = MmuKind::kTdp,
                          .gfns = GfnRange::Of(Gfn(8 * kMiB / kPageSize), 1),
                          .depth = FlushDepth::kTables});
  vcpu().gate().AddFlush({.mmu = MmuKind::kTdp,
                          .gfns = GfnRange::Of(Gfn(0), 512),
                          .depth = FlushDepth::kLeafs});
  vcpu().gate().AddRequests(kTlbFlush);
  {
    Patch patch(link, Spte::Initial());
    EXPECT_THAT(vm_->Audit().violations,
                Contains(HasSubstr("walks from a table of level 1")));
  }
  EXPECT_TRUE(vcpu().HandleRequests());
}

// The pages of a second stage are of memslots, also if shadow pages make it.
TEST(AuditShadowTlbTest, Inv6NoticesWhatShadowPagesDoNotAllow) {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, kMiB)};
  const std::unique_ptr<Vm> vm = MakeVmFrom(config);
  Write(*vm, 3 * kPageSize);
  VcpuTlb& tlb = vm->state().vcpus[0]->shadow()->tlb();
  const TlbEntry entry = *tlb.Lookup(PageNumber(3));
  TlbEntry elsewhere = entry;
  elsewhere.pfn += 1;
  tlb.Insert(elsewhere);
  EXPECT_THAT(AuditFindings(*vm), HasSubstr("translates page 0x3 to frame"));
  tlb.FlushAll();
  EXPECT_EQ(AuditFindings(*vm), "");
  ASSERT_TRUE(StartLog(*vm).ok());
  Read(*vm, 3 * kPageSize);  // without W
  tlb.Insert(entry);
  EXPECT_THAT(AuditFindings(*vm), HasSubstr("may write page 0x3"));
  tlb.FlushAll();
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST_F(AuditTest, Inv7NoticesAnInvalidRootThatStillMaps) {
  {
    MmuWriteLocked lock(state().mmu_lock, LockOp::kZap);
    const_cast<RootList&>(state().tdp.roots()).InvalidateAll();
  }
  EXPECT_THAT(Broken(), ElementsAre("INV-7"));
  // FastZapAll empties the invalid root.
  MutexLock slots(state().slots.slots_lock);
  state().tdp.FastZapAll(nullptr);
}

TEST_F(AuditTest, AThousandFindingsAreCutShort) {
  Touch(*vm_, GfnRange::Of(Gfn(0), 512));
  for (int i = 0; i < 512; ++i) {
    SpteSlot& slot = Entry(Gfn(i), Level::k4K);
    slot.Store(format().WithWrite(format().WithoutMmuWrite(slot.Load())));
  }
  EXPECT_EQ(vm_->Audit().violations.size(), 64u);
  MutexLock slots(state().slots.slots_lock);
  state().tdp.FastZapAll(nullptr);
}

}  // namespace
}  // namespace mmu
