#include "mmu_core/shadow/shadow_roots.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kP = guest_entry::kPresent;
constexpr uint64_t kHole = 0x100000;  // a gfn without a slot
constexpr uint64_t kVa = 0x12345000;
constexpr GuestPageAccess kRead = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kUserRead = {.kind = AccessKind::kRead,
                                       .privilege = Privilege::kUser};

class ShadowRootsTest : public ::testing::Test {
 protected:
  explicit ShadowRootsTest(const ShadowTestVm::Options& options = {})
      : vm_(options) {
    vm_.memory.AddSlot(GfnRange::Of(Gfn(0), 8192), Level::k2M);
  }
  ~ShadowRootsTest() override { EXPECT_EQ(vm_.AuditFindings(), ""); }

  uint64_t Misses() {
    return ShadowCounters::Get(vm_.counters.shadow.mmu_cache_miss);
  }
  void Zap(ShadowPageState& page) {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kZap);
    ZappedPages zapped;
    vm_.pages.zap().Prepare(lock, page, zapped);
    vm_.pages.zap().Commit(lock, zapped, nullptr);
  }
  static GuestRoot At(uint64_t table) { return {.table = Gfn(table)}; }
  static bool IsMapped(const ShadowTestVcpu& vcpu, uint64_t address) {
    return vcpu.Translate(address).present;
  }

  ShadowTestVm vm_;
};

class NestedRootsTest : public ShadowRootsTest {
 protected:
  NestedRootsTest() : ShadowRootsTest({.tdp = TdpEnabled::kYes}) {}

  std::unique_ptr<ShadowTestVcpu> NptVcpu(const GuestPagingState& l1,
                                          Level tdp_level) {
    const CpuRole role = NptCpuRole(l1);
    return std::make_unique<ShadowTestVcpu>(
        vm_, GuestWalker(GuestTables::kNpt, role, {}),
        ShadowNptRootRole(role, tdp_level));
  }
};

using NestedRootsDeathTest = NestedRootsTest;

// Covers: ROLE-20, ROLE-21
TEST_F(ShadowRootsTest, APaeGuestsRootIsAnArrayOverACountedPagePerPdpte) {
  ShadowTestVcpu vcpu(vm_, kPaePaging);
  vcpu.where().pdptes = {EntryTo(10, kP), 0, EntryTo(20, kP),
                         EntryTo(kHole, kP)};
  ASSERT_TRUE(vcpu.Load().ok());
  const ShadowRoots& roots = vcpu.roots();
  EXPECT_EQ(roots.level(), Level::k1G);
  EXPECT_EQ(vm_.pages.in_use(), 2u) << "no page of level 3";
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const Spte spte = roots.table()->entries[static_cast<size_t>(i)].Load();
    if (i != 0 && i != 2) {
      EXPECT_EQ(spte, Spte::Initial()) << i;
      continue;
    }
    ShadowPageState* const page =
        roots.TopPage(static_cast<uint64_t>(i) << 30 | kVa);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(&ChildAt(spte), page);
    EXPECT_EQ(page->gfn(), Gfn(i == 0 ? 10 : 20));
    EXPECT_EQ(page->level(), Level::k2M);
    EXPECT_EQ(page->root_count, 1);
  }
  EXPECT_EQ(roots.TopPage(uint64_t{1} << 30), nullptr);
  EXPECT_EQ(roots.TopPage(uint64_t{3} << 30), nullptr);

  const uint64_t address = uint64_t{2} << 30 | kVa;
  PutPath(vm_.memory, vcpu.guest().walker, 20, address, EntryTo(600));
  EXPECT_EQ(vcpu.Fault(address, kRead), FaultResult::kFixed);
  EXPECT_TRUE(IsMapped(vcpu, address));
  // The vCPU owns the array of PAE roots, so only freeing the roots drops it.
  EXPECT_FALSE(vcpu.roots().IsObsolete());
  vcpu.roots().FreeObsolete(nullptr);
  EXPECT_EQ(roots.table(), nullptr);
}

TEST_F(ShadowRootsTest, PdptesOfTheSameTableShareThePage) {
  ShadowTestVcpu vcpu(vm_, kPaePaging);
  vcpu.where().pdptes = {EntryTo(10, kP), EntryTo(10, kP), 0, 0};
  ASSERT_TRUE(vcpu.Load().ok());
  EXPECT_EQ(vcpu.roots().TopPage(0), vcpu.roots().TopPage(1 << 30));
  EXPECT_EQ(vcpu.roots().TopPage(0)->root_count, 2);
}

// Covers: ROLE-12, ROLE-20
TEST_F(ShadowRootsTest, APageDirectoryOfFourByteEntriesHasFourQuadrants) {
  ShadowTestVcpu vcpu(vm_, kTwoLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  EXPECT_EQ(vcpu.roots().level(), Level::k1G);
  std::set<int> quadrants;
  for (uint64_t i = 0; i < 4; ++i) {
    ShadowPageState* const page = vcpu.roots().TopPage(i << 30 | kVa);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page->gfn(), Gfn(10));
    EXPECT_EQ(page->page->role.quadrant(), static_cast<int>(i));
    quadrants.insert(page->page->role.quadrant());
    PutPath(vm_.memory, vcpu.guest().walker, 10, i << 30 | kVa,
            EntryTo(600 + i));
    EXPECT_EQ(vcpu.Fault(i << 30 | kVa, kRead), FaultResult::kFixed);
    EXPECT_EQ(vcpu.Translate(i << 30 | kVa).pfn,
              vm_.memory.SlotOf(0, Gfn(0))->PfnOf(Gfn(600 + i)));
  }
  EXPECT_EQ(quadrants.size(), 4u);
  EXPECT_TRUE(vm_.IsWriteTracked(10));
}

// Covers: ROLE-22
TEST_F(ShadowRootsTest, WithoutPagingFourDirectPagesMapTheFirstGigabytes) {
  ShadowTestVcpu vcpu(vm_, GuestPagingState{});
  ASSERT_TRUE(vcpu.Load().ok());
  for (uint64_t i = 0; i < 4; ++i) {
    const ShadowPageState* const page = vcpu.roots().TopPage(i << 30);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page->gfn(), Gfn(i * 0x40000));
    EXPECT_EQ(page->level(), Level::k2M);
    EXPECT_TRUE(page->page->role.IsDirect());
  }
  EXPECT_EQ(vcpu.Fault(kVa % (8192 * kPageSize), kRead), FaultResult::kFixed);
  EXPECT_TRUE(IsMapped(vcpu, kVa % (8192 * kPageSize)));
}

// Covers: ROLE-23
TEST_F(NestedRootsTest, ScratchTablesStandAboveThePaeRootsOfNpt) {
  for (const Level tdp_level : {Level::k512G, Level::k256T}) {
    const auto vcpu = NptVcpu(kTwoLevelPaging, tdp_level);
    vcpu->LoadCr3(Gfn(10));
    EXPECT_EQ(vcpu->roots().level(), tdp_level);
    // Only the four pages are in the hash and have descriptors.
    EXPECT_EQ(vm_.pages.in_use(), 4u);
    EXPECT_EQ(vm_.PagesOf(10).size(), 4u);
    const PageTable* table = vcpu->roots().table();
    for (Level level = tdp_level; level > Level::k1G; level = ChildOf(level)) {
      EXPECT_EQ(TablePool::DescriptorOf(table)->state, nullptr);
      const Spte spte = table->entries[0].Load();
      ASSERT_TRUE(spte.IsPresentTable(level));
      EXPECT_TRUE(vm_.format.IsAccessed(spte));
      EXPECT_EQ(vm_.format.RightsOf(spte), kAllRights);
      EXPECT_EQ(table->entries[1].Load(), Spte::Initial());
      table = TableOf(spte);
    }
    EXPECT_EQ(TablePool::DescriptorOf(table)->state, nullptr);
    PutPath(vm_.memory, vcpu->guest().walker, 10, kVa, EntryTo(600));
    EXPECT_EQ(vcpu->Fault(kVa, kUserRead), FaultResult::kFixed);
    EXPECT_TRUE(IsMapped(*vcpu, kVa));

    EXPECT_FALSE(vcpu->roots().IsObsolete());
    vcpu->roots().FreeObsolete(nullptr);
    EXPECT_EQ(vcpu->roots().table(), nullptr) << "counts as obsolete";
    vcpu->LoadCr3(Gfn(10));
    EXPECT_TRUE(IsMapped(*vcpu, kVa)) << "the pages were still there";
    vcpu->roots().FreeAll(nullptr);
    vm_.FastZap();
  }
}

// Covers: ROLE-24
TEST_F(ShadowRootsTest, ACr3ThatPointsNowhereGetsTheDummyRoot) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(kHole));
  ASSERT_NE(vcpu.roots().table(), nullptr);
  EXPECT_EQ(vcpu.roots().TopPage(kVa), nullptr);
  EXPECT_EQ(vcpu.roots().level(), Level::k512G);
  for (const SpteSlot& slot : vcpu.roots().table()->entries) {
    ASSERT_EQ(slot.Load(), Spte::Initial());
  }
  EXPECT_EQ(vm_.pages.in_use(), 0u);
  EXPECT_EQ(vcpu.Fault(kVa, kRead), std::nullopt) << "the guest's own fault";
  EXPECT_EQ(vcpu.walk.fault.code, 0u);

  // After a slot was added, the request to free obsolete roots is enough.
  vm_.memory.AddSlot(GfnRange::Of(Gfn(kHole), 512));
  PutPath(vm_.memory, vcpu.guest().walker, kHole, kVa, EntryTo(600));
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kRetry);
  vcpu.roots().FreeObsolete(nullptr);
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_TRUE(IsMapped(vcpu, kVa));
}

TEST_F(ShadowRootsTest, ASlotThatIsBeingDeletedHasNoRoots) {
  Memslot& slot = vm_.memory.AddSlot(GfnRange::Of(Gfn(kHole), 512));
  slot.flags |= kMemslotInvalid;
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(kHole));
  EXPECT_EQ(vcpu.roots().TopPage(kVa), nullptr);
  ShadowTestVcpu pae(vm_, kPaePaging);
  pae.where().pdptes = {EntryTo(kHole, kP), 0, 0, 0};
  ASSERT_TRUE(pae.Load().ok());
  EXPECT_EQ(pae.roots().TopPage(0), nullptr);
  EXPECT_EQ(vm_.pages.in_use(), 0u);
}

// Covers: ROLE-30, ROLE-34, ROLE-36
TEST_F(NestedRootsTest, AFiveLevelHostPutsAPassthroughPageAboveFourLevels) {
  const auto vcpu = NptVcpu(kFourLevelPaging, Level::k256T);
  vcpu->LoadCr3(Gfn(10));
  PutPath(vm_.memory, vcpu->guest().walker, 10, kVa, EntryTo(600));
  ASSERT_EQ(vcpu->Fault(kVa, kUserRead), FaultResult::kFixed);
  EXPECT_TRUE(IsMapped(*vcpu, kVa));

  ShadowPageState& root = *vcpu->roots().TopPage(kVa);
  EXPECT_EQ(vcpu->roots().level(), Level::k256T);
  EXPECT_TRUE(root.page->role.IsPassthrough());
  EXPECT_EQ(root.gfn(), Gfn(10));
  ASSERT_TRUE(root.EntryAt(0).Load().IsPresentTable(Level::k256T));
  ShadowPageState& child = ChildAt(root.EntryAt(0).Load());
  EXPECT_EQ(child.level(), Level::k512G);
  EXPECT_FALSE(child.page->role.IsPassthrough());
  EXPECT_EQ(child.gfn(), Gfn(10));
  for (int i = 1; i < kEntriesPerTable; ++i) {
    ASSERT_EQ(root.EntryAt(i).Load(), Spte::Initial()) << i;
  }
  EXPECT_EQ(
      vm_.memory.SlotOf(0, Gfn(0))->shadow_rmaps()->WriteTrackers(Gfn(10)), 1);

  EXPECT_FALSE(vm_.GuestWrites(10, 0, 0)) << "noticed";
  EXPECT_EQ(root.EntryAt(0).Load(), Spte::Initial());
  EXPECT_FALSE(vcpu->roots().IsObsolete());
}

// Covers: ROLE-35
TEST_F(NestedRootsDeathTest, ChildrenAreSyncedThroughAPassthroughPage) {
  const auto vcpu = NptVcpu(kFourLevelPaging, Level::k256T);
  vcpu->LoadCr3(Gfn(10));
  PutPath(vm_.memory, vcpu->guest().walker, 10, kVa, EntryTo(600));
  ASSERT_EQ(vcpu->Fault(kVa, kUserRead), FaultResult::kFixed);
  EXPECT_TRUE(vm_.GuestWrites(13, 0x145, 0)) << "unsync from now on";
  EXPECT_TRUE(IsMapped(*vcpu, kVa)) << "stale";
  vcpu->roots().Sync(vcpu->guest(), nullptr);
  EXPECT_FALSE(IsMapped(*vcpu, kVa));

  ShadowPageState& root = *vcpu->roots().TopPage(kVa);
  EXPECT_DEATH(
      {
        MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
        vm_.sync.SyncPage(lock, vcpu->guest(), root, nullptr);
      },
      "");
}

// Covers: SHD-54
TEST_F(ShadowRootsTest, FourCr3sAlternateWithoutNewRoots) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  std::vector<uint64_t> ids;
  for (uint64_t table : {10, 20, 30, 40}) {
    vcpu.LoadCr3(Gfn(table));
    ids.push_back(vcpu.roots().id());
  }
  EXPECT_EQ(Misses(), 4u);
  EXPECT_EQ(std::set<uint64_t>(ids.begin(), ids.end()).size(), 4u);
  for (int i = 0; i < 12; ++i) {
    const uint64_t table = 10 + 10 * static_cast<uint64_t>(i * 3 % 4);
    ASSERT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(table), nullptr));
    EXPECT_EQ(vcpu.roots().TopPage(kVa)->gfn(), Gfn(table));
    EXPECT_EQ(vcpu.roots().id(), ids[static_cast<size_t>(table / 10 - 1)]);
    EXPECT_EQ(vcpu.roots().table(), vcpu.roots().TopPage(kVa)->page->table);
  }
  EXPECT_EQ(Misses(), 4u);

  // Loads the four kept roots in this order, so that 10 is the oldest.
  for (uint64_t table : {10, 20, 30, 40}) vcpu.LoadCr3(Gfn(table));
  vcpu.LoadCr3(Gfn(50));
  EXPECT_EQ(vm_.PagesOf(10)[0]->root_count, 0);
  EXPECT_EQ(vm_.PagesOf(20)[0]->root_count, 1);
  EXPECT_FALSE(vcpu.roots().SwitchTo(vcpu.guest(), At(10), nullptr));
  EXPECT_EQ(vcpu.roots().table(), nullptr);
  // SwitchTo has dropped root 20 to make room. Root 30 is still kept.
  EXPECT_EQ(vm_.PagesOf(20)[0]->root_count, 0);
  EXPECT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(30), nullptr));
}

// Covers: SHD-54
TEST_F(ShadowRootsTest, AKeptRootIsUsedOnlyIfItIsValid) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  const uint64_t id = vcpu.roots().id();
  ShadowPageState& zapped = *vcpu.roots().TopPage(kVa);
  vcpu.LoadCr3(Gfn(20));
  Zap(zapped);
  EXPECT_FALSE(vcpu.roots().SwitchTo(vcpu.guest(), At(10), nullptr));
  vcpu.LoadCr3(Gfn(10));
  EXPECT_NE(vcpu.roots().TopPage(kVa), &zapped);
  EXPECT_NE(vcpu.roots().id(), id);
  // A kept root is not used by a vCPU in another paging mode, either.
  ShadowTestVcpu other(
      vm_, GuestPagingState{
               .cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx});
  EXPECT_FALSE(vcpu.roots().SwitchTo(other.guest(), At(10), nullptr));
}

// Covers: SHD-54, SHD-32
TEST_F(ShadowRootsTest, AKeptRootComesBackAsItWasLeftUnlessItIsSynced) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  PutPath(vm_.memory, vcpu.guest().walker, 10, kVa, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_TRUE(vm_.GuestWrites(13, 0x145, 0));
  ASSERT_FALSE(vcpu.roots().SwitchTo(vcpu.guest(), At(20), nullptr));
  ASSERT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(10), nullptr));
  EXPECT_TRUE(IsMapped(vcpu, kVa)) << "the guest asked not to flush";
  ASSERT_TRUE(vcpu.Load().ok());
  EXPECT_FALSE(IsMapped(vcpu, kVa));
}

// The root is not kept, but its page and those below it are there.
// Covers: SHD-32
TEST_F(ShadowRootsTest, ARootThatIsMadeAgainIsSynced) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  PutPath(vm_.memory, vcpu.guest().walker, 10, kVa, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_TRUE(vm_.GuestWrites(13, 0x145, 0));
  const uint64_t misses = Misses();
  ShadowTestVcpu other(vm_, kFourLevelPaging);
  other.LoadCr3(Gfn(10));
  EXPECT_EQ(Misses(), misses) << "the same page";
  EXPECT_FALSE(IsMapped(other, kVa));
}

TEST_F(ShadowRootsTest, PaeRootsAreNotKept) {
  ShadowTestVcpu vcpu(vm_, kTwoLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  const uint64_t id = vcpu.roots().id();
  EXPECT_FALSE(vcpu.roots().SwitchTo(vcpu.guest(), At(10), nullptr));
  EXPECT_EQ(vm_.PagesOf(10)[0]->root_count, 0);
  vcpu.LoadCr3(Gfn(10));
  EXPECT_NE(vcpu.roots().id(), id);
  EXPECT_EQ(Misses(), 4u) << "the pages are found";
}

// Covers: SHD-28
TEST_F(ShadowRootsTest, WhenAllPagesAreRootsInUseALoadFails) {
  std::vector<std::unique_ptr<ShadowTestVcpu>> vcpus;
  for (uint64_t i = 0; i < ShadowPages::kMinLimit; ++i) {
    if (i % 4 == 0) {
      vcpus.push_back(std::make_unique<ShadowTestVcpu>(vm_, kFourLevelPaging));
    }
    vcpus.back()->LoadCr3(Gfn(100 + i));
  }
  EXPECT_EQ(vm_.pages.Available(), 0u);
  ShadowTestVcpu one_more(vm_, kFourLevelPaging);
  one_more.where().table = Gfn(500);
  const absl::Status status = one_more.Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kShadowPagesExhausted);
  EXPECT_EQ(DetailOf(status).field, "shadow_page_limit");
  EXPECT_EQ(DetailOf(status).kvm_errno, ENOSPC);
  EXPECT_EQ(one_more.roots().table(), nullptr);
  EXPECT_EQ(vm_.pages.in_use(), ShadowPages::kMinLimit);

  vcpus.pop_back();
  EXPECT_TRUE(one_more.Load().ok()) << "four roots may go now";
}

TEST_F(ShadowRootsTest, ALoadWithoutMemoryForTablesLeavesNoRoot) {
  vm_.tables.SetMaxTables(1);
  ShadowTestVcpu vcpu(vm_, kTwoLevelPaging);
  vcpu.where().table = Gfn(10);
  EXPECT_EQ(DetailOf(vcpu.Load()).reason, Reason::kMmuPagesExhausted);
  EXPECT_EQ(vcpu.roots().table(), nullptr);
  vm_.tables.SetMaxTables(0);
  EXPECT_TRUE(vcpu.Load().ok());
}

// Covers: SHD-45
TEST_F(ShadowRootsTest, InvlpgDropsTheLeafInTheCurrentAndTheKeptRoots) {
  constexpr uint64_t kOther = kVa + 0x3000;
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  for (uint64_t table : {10, 20}) {
    PutPath(vm_.memory, vcpu.guest().walker, table, kVa, EntryTo(600));
    PutPath(vm_.memory, vcpu.guest().walker, table, kOther, EntryTo(700));
    vcpu.LoadCr3(Gfn(table));
    ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
    ASSERT_EQ(vcpu.Fault(kOther, kRead), FaultResult::kFixed);
  }
  for (uint64_t table : {13, 23}) {
    EXPECT_TRUE(vm_.GuestWrites(table, 0x145, 0));
    EXPECT_TRUE(vm_.GuestWrites(table, 0x148, 0));
  }
  const uint64_t flushes = vm_.Flushes();
  vcpu.roots().InvalidateAddress(vcpu.guest(), kVa, nullptr);
  EXPECT_GT(vm_.Flushes(), flushes);
  for (uint64_t table : {20, 10}) {
    ASSERT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(table), nullptr));
    EXPECT_FALSE(IsMapped(vcpu, kVa)) << table;
    EXPECT_TRUE(IsMapped(vcpu, kOther)) << "not asked for";
    EXPECT_TRUE(vm_.PagesOf(table + 3)[0]->unsync.load());
  }
}

TEST_F(ShadowRootsTest, InvlpgOfAKeptRootOfAnotherModeDropsTheLeaf) {
  constexpr GuestPagingState kNoWp = {
      .cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  ShadowTestVcpu mode(vm_, kNoWp);  // only its role is used
  PutPath(vm_.memory, vcpu.guest().walker, 10, kVa, EntryTo(600));
  vcpu.LoadCr3(Gfn(10));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  ASSERT_TRUE(vm_.GuestWrites(13, 0x145, EntryTo(601)));
  ASSERT_TRUE(vcpu.roots().Load(mode.guest(), At(20), nullptr).ok());
  vcpu.roots().InvalidateAddress(mode.guest(), kVa, nullptr);
  ASSERT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(10), nullptr));
  EXPECT_FALSE(IsMapped(vcpu, kVa));
}

TEST_F(ShadowRootsTest, AfterAFastZapAllRootsAreLetGo) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.LoadCr3(Gfn(10));
  vcpu.LoadCr3(Gfn(20));
  EXPECT_FALSE(vcpu.roots().IsObsolete());
  vm_.FastZap();
  EXPECT_TRUE(vcpu.roots().IsObsolete());
  EXPECT_EQ(vm_.pages.in_use(), 2u);
  vcpu.roots().FreeObsolete(nullptr);
  EXPECT_EQ(vcpu.roots().table(), nullptr);
  EXPECT_EQ(vm_.pages.in_use(), 0u);
  EXPECT_TRUE(vcpu.roots().IsObsolete()) << "there is none";
}

TEST_F(ShadowRootsTest, WithoutGuestTablesAllCr3sHaveOneRoot) {
  const GuestPagingState state;
  ShadowTestVcpu vcpu(vm_, GuestWalker(),
                      TdpRootRole(Level::k512G, AdBits::kEnabled, state));
  vcpu.LoadCr3(Gfn(10));
  EXPECT_EQ(vcpu.roots().TopPage(kVa)->gfn(), Gfn(0));
  EXPECT_TRUE(vcpu.roots().SwitchTo(vcpu.guest(), At(kHole), nullptr));
  EXPECT_EQ(vm_.pages.in_use(), 1u);
}

// A guest's flush after a write to a table: it must find the table if the table
// is unsync.
struct GuestFlush {
  const char* name;
  std::function<void(ShadowTestVcpu&)> run;
};
std::ostream& operator<<(std::ostream& os, const GuestFlush& flush) {
  return os << flush.name;
}

class GuestFlushTest : public ShadowRootsTest,
                       public ::testing::WithParamInterface<GuestFlush> {
 protected:
  GuestFlushTest() {
    vcpu_.LoadCr3(Gfn(10));
    PutPath(vm_.memory, vcpu_.guest().walker, 10, kVa, EntryTo(600));
  }

  // The table of level 1 is at gfn 13; it maps kVa, and is synchronised.
  void Map() {
    vm_.memory.PutEntry(Gfn(13), 0x145, EntryTo(600));
    vcpu_.roots().Sync(vcpu_.guest(), nullptr);
    ASSERT_EQ(vcpu_.Fault(kVa, kRead), FaultResult::kFixed);
    ASSERT_TRUE(IsMapped(vcpu_, kVa));
  }
  // A fault of another vCPU: makes the table unsync and writable. The table's
  // SPTE is `writable`, which the fault stores as an SpteSlot does. Keeps
  // mmu_lock until `leave`.
  void MakeUnsync(std::atomic<bool>& writable, const std::atomic<bool>& leave) {
    MmuReadLocked lock(vm_.mmu_lock, LockOp::kFault);
    if (vm_.gate.MayMapWritable(lock, *vm_.memory.SlotOf(0, Gfn(13)), Gfn(13),
                                Prefetched::kNo)) {
      writable.store(true, std::memory_order_release);
    }
    while (!leave) std::this_thread::yield();
  }

  ShadowTestVcpu vcpu_{vm_, kFourLevelPaging};
};

// One vCPU writes to a table and flushes, while a fault of another vCPU makes
// the table unsync (RACE-33). A guest's write orders nothing: the SPTE is found
// by a relaxed load, so that only the flush's own fence orders its look at the
// marks after the write. On x86 the processor keeps that order by itself, so
// this test sees a flush that looks too early in the program, not a missing
// fence.
// Covers: SHD-37
TEST_P(GuestFlushTest, AfterAWriteThatNobodySawItFindsTheTable) {
  const std::atomic<bool> leave{true};
  for (int round = 0; round < 300; ++round) {
    Map();
    std::atomic<bool> writable{false};
    std::thread fault([&] { MakeUnsync(writable, leave); });
    while (!writable.load(std::memory_order_relaxed)) {
      std::this_thread::yield();
    }
    vm_.memory.PutEntry(Gfn(13), 0x145, 0);
    GetParam().run(vcpu_);
    const bool mapped = IsMapped(vcpu_, kVa);
    fault.join();
    ASSERT_FALSE(mapped) << round;
  }
}

// The fault still holds mmu_lock when the guest has written and flushes. The
// flush looks without the lock, and waits for the lock because it has found the
// marks; a flush that missed them would return at once.
// Covers: SHD-37
TEST_P(GuestFlushTest, ItWaitsForTheFaultThatMadeTheTableUnsync) {
  Map();
  std::atomic<bool> writable{false};
  std::atomic<bool> leave{false};
  std::thread fault([&] { MakeUnsync(writable, leave); });
  while (!writable) std::this_thread::yield();
  vm_.memory.PutEntry(Gfn(13), 0x145, 0);
  std::atomic<bool> flushed{false};
  std::thread guest([&] {
    GetParam().run(vcpu_);
    flushed = true;
  });
  while (!vm_.mmu_lock.IsContended() && !flushed) std::this_thread::yield();
  EXPECT_FALSE(flushed);
  leave = true;
  fault.join();
  guest.join();
  EXPECT_FALSE(IsMapped(vcpu_, kVa));
}

// Without an unsync table a flush takes no lock, so its answer above is that of
// the check without the lock.
// Covers: SHD-37
TEST_P(GuestFlushTest, WithoutAnUnsyncTableItTakesNoLock) {
  Map();
  std::atomic<bool> flushed{false};
  std::thread guest;
  {
    MmuReadLocked lock(vm_.mmu_lock, LockOp::kFault);
    guest = std::thread([&] {
      GetParam().run(vcpu_);
      flushed = true;
    });
    while (!vm_.mmu_lock.IsContended() && !flushed) std::this_thread::yield();
    EXPECT_TRUE(flushed);
  }
  guest.join();
  EXPECT_TRUE(IsMapped(vcpu_, kVa));
}

INSTANTIATE_TEST_SUITE_P(
    Flushes, GuestFlushTest,
    ::testing::Values(GuestFlush{"LoadOfCr3",
                                 [](ShadowTestVcpu& vcpu) {
                                   EXPECT_TRUE(vcpu.Load().ok());
                                 }},
                      GuestFlush{"Sync",
                                 [](ShadowTestVcpu& vcpu) {
                                   vcpu.roots().Sync(vcpu.guest(), nullptr);
                                 }},
                      GuestFlush{"Invlpg",
                                 [](ShadowTestVcpu& vcpu) {
                                   vcpu.roots().InvalidateAddress(vcpu.guest(),
                                                                  kVa, nullptr);
                                 }}),
    [](const auto& flush) { return std::string(flush.param.name); });

}  // namespace
}  // namespace mmu::testing
