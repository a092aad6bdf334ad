// The TDP MMU beside shadow pages: the gate keeps the guest's tables read-only.

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/mmu/write_gate.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::EntryIn;
using ::mmu::testing::FaultOn;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kMiB;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Recover;
using ::mmu::testing::Slot;
using ::mmu::testing::SlotOf;
using ::mmu::testing::Split;
using ::mmu::testing::Touch;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr WriteTriple kWritable = {true, true, true};
constexpr WriteTriple kProtected = {true, false, false};
constexpr WriteTriple kReadonly = {false, false, false};

class FakeGate : public WriteGate {
 public:
  bool MayMapWritable(const MmuReadLocked&, const Memslot&, Gfn gfn,
                      Prefetched prefetched) override {
    asked.push_back(gfn.value());
    last_prefetched = prefetched;
    return refused.count(gfn.value()) == 0;
  }
  bool MayMapWritable(const MmuWriteLocked&, const Memslot&, Gfn,
                      Prefetched) override {
    ADD_FAILURE() << "the TDP MMU maps under the lock in read mode";
    return false;
  }

  std::set<uint64_t> refused;
  std::vector<uint64_t> asked;
  Prefetched last_prefetched = Prefetched::kNo;
};

// A second TDP MMU over the memory of a VM.
class TdpWriteGateTest : public ::testing::Test {
 protected:
  explicit TdpWriteGateTest(Level host_page_level = Level::k4K)
      : vm_(MakeVm({Slot(0, 0, 4 * kMiB, host_page_level)})),
        tdp_({.format = SpteFormat::Ept(),
              .lock = vm_->state().mmu_lock,
              .tlb = vm_->state().tlb.Of(MmuKind::kTdp),
              .pool = vm_->state().pool,
              .counters = counters_,
              .invalidations = vm_->state().invalidations,
              .nx_huge_pages = nx_huge_pages_,
              .write_gate = &gate_},
             {}) {
    EXPECT_TRUE(cache_.TopUp(TdpMmu::kTablesPerFault).ok());
    root_ = *tdp_.LoadRoot(0, cache_);
  }

  FaultResult Map(PageFault& fault) {
    EXPECT_TRUE(cache_.TopUp(TdpMmu::kTablesPerFault).ok());
    MmuReadLocked lock(vm_->state().mmu_lock, LockOp::kFault);
    return tdp_.Map(lock, *root_, fault, cache_);
  }
  FaultResult Map(uint64_t gfn, AccessKind kind) {
    PageFault fault = FaultOn(*vm_, Gfn(gfn), kind);
    return Map(fault);
  }
  WriteTriple TripleOf(uint64_t gfn, Level level = Level::k4K) {
    return SpteFormat::Ept().TripleOf(EntryIn(*root_, Gfn(gfn), level).Load());
  }

  MmuCounters counters_;
  NxHugePages nx_huge_pages_;
  FakeGate gate_;
  std::unique_ptr<Vm> vm_;
  TdpMmu tdp_;
  TableCache cache_{vm_->state().pool};
  RootRef root_;
};

// Covers: SPTE-14
TEST_F(TdpWriteGateTest, ARefusedWriteEndsWithAReadOnlyEntry) {
  gate_.refused = {7};
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kWriteProtected);
  EXPECT_EQ(TripleOf(7), kProtected);
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kWriteProtected)
      << "nothing changes, and it is not spurious";
  EXPECT_EQ(TripleOf(7), kProtected);
  EXPECT_EQ(Map(7, AccessKind::kRead), FaultResult::kSpurious);

  EXPECT_EQ(Map(8, AccessKind::kWrite), FaultResult::kFixed);
  EXPECT_EQ(TripleOf(8), kWritable);

  gate_.refused.clear();
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kFixed);
  EXPECT_EQ(TripleOf(7), kWritable);
}

TEST_F(TdpWriteGateTest, AReadIsServedAllTheSame) {
  gate_.refused = {7};
  EXPECT_EQ(Map(7, AccessKind::kRead), FaultResult::kFixed);
  EXPECT_EQ(TripleOf(7), kProtected);
  // A fast fault must not grant the write that the gate refused.
  PageFault fault = FaultOn(*vm_, Gfn(7), AccessKind::kWrite);
  EXPECT_EQ(tdp_.FastFault(*root_, fault), FaultResult::kInvalid);
  EXPECT_EQ(TripleOf(7), kProtected);
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kWriteProtected);
}

TEST_F(TdpWriteGateTest, TheGateIsAskedOnlyForWhatTheHostAllows) {
  PageFault fault = FaultOn(*vm_, Gfn(7), AccessKind::kRead);
  fault.map_writable = HostWritable::kNo;
  EXPECT_EQ(Map(fault), FaultResult::kFixed);
  EXPECT_EQ(TripleOf(7), kReadonly);
  EXPECT_THAT(gate_.asked, IsEmpty());
  EXPECT_EQ(Map(8, AccessKind::kRead), FaultResult::kFixed);
  EXPECT_THAT(gate_.asked, ElementsAre(8));
  EXPECT_EQ(Map(8, AccessKind::kWrite), FaultResult::kSpurious);
  EXPECT_THAT(gate_.asked, ElementsAre(8)) << "it is writable already";
}

TEST_F(TdpWriteGateTest, TheGateKnowsAPrefetch) {
  PageFault fault = FaultOn(*vm_, Gfn(7), AccessKind::kRead);
  fault.prefetched = Prefetched::kYes;
  EXPECT_EQ(Map(fault), FaultResult::kFixed);
  EXPECT_EQ(gate_.last_prefetched, Prefetched::kYes);
}

TEST_F(TdpWriteGateTest, ARefusedWriteIsNotDirty) {
  Memslot slot = SlotOf(*vm_, Gfn(7));
  slot.flags |= kMemslotLogDirtyPages;
  slot.dirty_bitmap =
      std::make_shared<DirtyBitmap>(slot.npages, InitiallySet::kNo);
  gate_.refused = {7};
  for (const uint64_t gfn : {uint64_t{7}, uint64_t{8}}) {
    PageFault fault = FaultOn(*vm_, Gfn(gfn), AccessKind::kWrite);
    fault.slot = &slot;
    Map(fault);
    EXPECT_EQ(fault.dirtied_pages, gfn == 8 ? 1 : 0);
    EXPECT_EQ(slot.dirty_bitmap->Test(gfn), gfn == 8);
  }
}

class HugeTdpWriteGateTest : public TdpWriteGateTest {
 protected:
  HugeTdpWriteGateTest() : TdpWriteGateTest(Level::k2M) {}
};

// Covers: SHD-09
TEST_F(HugeTdpWriteGateTest, AProtectedHugePageIsMappedSmallPageByPage) {
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kFixed);
  ASSERT_EQ(TripleOf(0, Level::k2M), kWritable);
  // This is what a shadow page for gfn 7 does.
  SlotOf(*vm_, Gfn(7)).lpage_info->Disallow(Gfn(7));
  gate_.refused = {7};
  {
    MmuWriteLocked lock(vm_->state().mmu_lock, LockOp::kFault);
    EXPECT_TRUE(tdp_.WriteProtectGfn(lock, 0, Gfn(7), Level::k4K));
  }
  ASSERT_EQ(TripleOf(0, Level::k2M), kProtected);

  EXPECT_EQ(Map(8, AccessKind::kWrite), FaultResult::kFixed);
  EXPECT_EQ(TripleOf(8), kWritable);
  EXPECT_EQ(TripleOf(7), kProtected);
  EXPECT_EQ(TripleOf(9), kProtected) << "until its first write";
  EXPECT_EQ(Map(7, AccessKind::kWrite), FaultResult::kWriteProtected);
  EXPECT_EQ(TripleOf(7), kProtected);
  EXPECT_EQ(Map(9, AccessKind::kWrite), FaultResult::kFixed);
  SlotOf(*vm_, Gfn(7)).lpage_info->Allow(Gfn(7));
}

// Huge page recovery spares pages with a guest's table: a writable huge page
// would let the guest write the table.
TEST(TdpRecoverWithTrackedGfnTest, ATrackedGfnIsNoPartOfARecoveredHugePage) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 2 * k2MPages));
  Split(*vm, GfnRange::Of(Gfn(0), 2 * k2MPages));
  SlotOf(*vm, Gfn(7)).lpage_info->Disallow(Gfn(7));
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), 2 * k2MPages)).to_2m_count, 1u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(7)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(k2MPages)), Level::k2M);
  SlotOf(*vm, Gfn(7)).lpage_info->Allow(Gfn(7));
}

}  // namespace
}  // namespace mmu
