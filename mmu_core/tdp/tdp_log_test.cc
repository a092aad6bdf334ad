// Clearing W or D for dirty logging.

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::Contender;
using ::mmu::testing::EntryOf;
using ::mmu::testing::FaultOn;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MapInto;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Touch;
using ::mmu::testing::Waiter;
using ::mmu::testing::Write;
using ::mmu::testing::WriteProtect;
using ::mmu::testing::YieldsOf;
using ::testing::ElementsAre;

// gfns 0..511 mapped small, 512..1023 by one huge page.
std::unique_ptr<Vm> SmallAndHuge() {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  testing::Split(*vm, GfnRange::Of(Gfn(0), 512));
  return vm;
}

std::vector<Mapping> SmallAndHugeMappings(const char* small, const char* huge) {
  std::vector<Mapping> all;
  for (uint64_t gfn = 0; gfn < 512; ++gfn) {
    all.push_back({gfn, Level::k4K, small});
  }
  all.push_back({512, Level::k2M, huge});
  return all;
}

// Flushes as the callers of the functions under test must.
void Flush(Vm& vm) {
  vm.state().tlb.Flush(FlushScope::kVm, FlushReason::kWriteProtect, nullptr);
}

// Covers: TDP-50, SPTE-35
TEST(TdpWriteProtectTest, EveryLeafOfAtLeastTheLevelLosesWOnly) {
  auto vm = SmallAndHuge();
  const uint64_t flushes = FlushesOf(*vm);
  EXPECT_TRUE(WriteProtect(*vm, GfnRange::Of(Gfn(0), 1024), Level::k2M));
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwad", "rmad"));
  EXPECT_TRUE(WriteProtect(*vm, GfnRange::Of(Gfn(0), 1024), Level::k4K));
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rmad", "rmad"));
  EXPECT_FALSE(WriteProtect(*vm, GfnRange::Of(Gfn(0), 1024)))
      << "a second run changes nothing";
  EXPECT_EQ(FlushesOf(*vm), flushes) << "the caller flushes";
  Flush(*vm);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-50
TEST(TdpWriteProtectTest, OnlyTheRangeIsProtected) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 4));
  EXPECT_TRUE(WriteProtect(*vm, GfnRange::Of(Gfn(1), 2)));
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k4K, "rwad"},
                          Mapping{1, Level::k4K, "rmad"},
                          Mapping{2, Level::k4K, "rmad"},
                          Mapping{3, Level::k4K, "rwad"}));
}

// Covers: TLB-08, TLB-05
TEST(TdpWriteProtectTest, UntilTheFlushAVcpuMayWriteThroughWhatItHasCached) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  WriteProtect(*vm, GfnRange::Of(Gfn(0), 1));
  const uint64_t faults = vm->VcpuStats()[0].pf_taken;
  Write(*vm, 0, 2);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, faults) << "stale, and still allowed";
  // The MMU-writable bit says that a TLB may still allow writes, so clearing
  // that bit needs a flush.
  const SpteFormat& format = vm->state().tdp.format();
  const Spte spte = SpteOf(vm->state(), Gfn(0));
  EXPECT_EQ(format.TripleOf(spte), (WriteTriple{true, true, false}));
  EXPECT_TRUE(format.ChangeNeedsFlush(spte, format.WithoutMmuWrite(spte)));
  Flush(*vm);
  Write(*vm, 0, 3);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, faults + 1);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-24, TLB-09
TEST(TdpWriteProtectTest, ItYieldsWithoutAFlush) {
  auto vm = SmallAndHuge();
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t yields = YieldsOf(*vm, LockMode::kRead, LockOp::kEnable);
  std::unique_ptr<Waiter> waiter;
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_TRUE(vm->state().tdp.WriteProtect(
        lock, 0, GfnRange::Of(Gfn(0), 1024), Level::k4K, nullptr));
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kRead, LockOp::kEnable), yields + 1);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rmad", "rmad"));
}

// Covers: TDP-20
TEST(TdpWriteProtectTest, ItFinishesThoughAThreadWaitsAllTheTime) {
  auto vm = MakeVm({Slot(0, 0, 16 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 4096));
  Contender contender(vm->state().mmu_lock);
  while (contender.turns() == 0) std::this_thread::yield();
  EXPECT_TRUE(WriteProtect(*vm, GfnRange::Of(Gfn(0), 4096)));
  EXPECT_LE(YieldsOf(*vm, LockMode::kRead, LockOp::kEnable), 4096u)
      << "at most one for each step";
  for (const Mapping& mapping : AllMappings(vm->state())) {
    ASSERT_EQ(mapping.flags, "rmad") << mapping;
  }
}

// Covers: TDP-51
TEST(TdpClearDirtyTest, DIsTakenFromLeafsOfAllSizesAndASecondRunFindsNone) {
  auto vm = SmallAndHuge();
  const auto clear = [&] {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    return vm->state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), 1024),
                                      nullptr);
  };
  EXPECT_TRUE(clear());
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwa", "rwa"));
  EXPECT_FALSE(clear());
  // A vCPU whose TLB entry has D does not set D in the SPTE before the flush.
  const uint64_t flushes = FlushesOf(*vm);
  Write(*vm, 511 * kPageSize);
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwa", "rwa"));
  EXPECT_EQ(FlushesOf(*vm), flushes);
  Flush(*vm);
  Write(*vm, 600 * kPageSize);
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwa", "rwad"));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Without Dirty bits only a missing W makes the next write noticed.
// Covers: TDP-51
TEST(TdpClearDirtyTest, WithoutDirtyBitsWIsTakenFromLeafsOfAllSizes) {
  VmConfig config;
  config.ad_bits = VmConfig::AdBits::kOff;
  config.memslots = {Slot(0, 0, 4 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  testing::Split(*vm, GfnRange::Of(Gfn(0), 512));
  const auto clear = [&] {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    return vm->state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), 1024),
                                      nullptr);
  };
  EXPECT_TRUE(clear());
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rma", "rma"));
  EXPECT_FALSE(clear());
  Flush(*vm);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-24
TEST(TdpClearDirtyTest, ItYields) {
  auto vm = SmallAndHuge();
  const uint64_t yields = YieldsOf(*vm, LockMode::kRead, LockOp::kEnable);
  std::unique_ptr<Waiter> waiter;
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_TRUE(vm->state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), 1024),
                                           nullptr));
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kRead, LockOp::kEnable), yields + 1);
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwa", "rwa"));
}

// Covers: TDP-55
TEST(TdpMaskedTest, OnlySmallLeafsWhoseBitIsSetLoseW) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(60), 12));
  const auto protect = [&](uint64_t first, uint64_t mask) {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    return vm->state().tdp.WriteProtectMasked(lock, 0, Gfn(first), mask,
                                              nullptr);
  };
  const uint64_t flushes = FlushesOf(*vm);
  // The pages 64 + 1 and 64 + 4 are mapped, 64 + 40 is not.
  EXPECT_TRUE(
      protect(64, uint64_t{1} << 1 | uint64_t{1} << 4 | uint64_t{1} << 40));
  std::vector<Mapping> expected;
  for (uint64_t gfn = 60; gfn < 72; ++gfn) {
    expected.push_back(
        {gfn, Level::k4K, gfn == 65 || gfn == 68 ? "rmad" : "rwad"});
  }
  EXPECT_EQ(AllMappings(vm->state()), expected);
  EXPECT_FALSE(protect(64, uint64_t{1} << 1)) << "already protected";
  EXPECT_TRUE(protect(8, uint64_t{1} << 63)) << "page 71, the last bit";
  EXPECT_EQ(vm->state().tdp.format().TripleOf(SpteOf(vm->state(), Gfn(71))),
            (WriteTriple{true, true, false}));
  EXPECT_EQ(FlushesOf(*vm), flushes) << "the caller flushes";
}

// Covers: TDP-55
TEST(TdpMaskedTest, SixtyFourPagesMayLieInTwoTables) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(500), 20));
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_TRUE(vm->state().tdp.WriteProtectMasked(
        lock, 0, Gfn(500), (uint64_t{1} << 20) - 1, nullptr));
  }
  for (uint64_t gfn = 500; gfn < 520; ++gfn) {
    EXPECT_FALSE(SpteOf(vm->state(), Gfn(gfn)).IsWritable()) << gfn;
  }
}

// Covers: TDP-55
TEST(TdpMaskedTest, AHugeLeafStaysWritable) {
  auto vm = SmallAndHuge();
  MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
  EXPECT_FALSE(vm->state().tdp.WriteProtectMasked(lock, 0, Gfn(512),
                                                  ~uint64_t{0}, nullptr));
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwad", "rwad"));
  EXPECT_TRUE(vm->state().tdp.WriteProtectMasked(lock, 0, Gfn(448),
                                                 ~uint64_t{0}, nullptr));
}

// Covers: TDP-56
TEST(TdpWriteProtectGfnTest, TheLeafOfAtLeastTheLevelLosesWForGood) {
  auto vm = SmallAndHuge();
  const auto protect = [&](uint64_t gfn, Level min_level) {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    return vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(gfn), min_level);
  };
  EXPECT_FALSE(protect(5, Level::k2M)) << "mapped small";
  EXPECT_TRUE(protect(700, Level::k2M));
  EXPECT_EQ(AllMappings(vm->state()), SmallAndHugeMappings("rwad", "rad"));
  EXPECT_FALSE(protect(512, Level::k2M)) << "the same leaf, nothing changes";
  EXPECT_TRUE(protect(5, Level::k4K));
  EXPECT_EQ(vm->state().tdp.format().TripleOf(SpteOf(vm->state(), Gfn(5))),
            (WriteTriple{true, false, false}));
  EXPECT_FALSE(protect(100000, Level::k4K)) << "nothing is mapped there";
}

// Covers: TDP-56, TLB-08
TEST(TdpWriteProtectGfnTest, EvenWithoutWAChangeIsReported) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  // There is no flush, so a TLB may still allow writes.
  WriteProtect(*vm, GfnRange::Of(Gfn(0), 1));
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_TRUE(vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K));
    Flush(*vm);
  }
  const uint64_t fast = vm->VcpuStats()[0].pf_fast;
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  Write(*vm, 0, 2);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken + 1);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, fast) << "the fast fault refuses";
}

// Covers: TRM-05, TDP-50, TDP-56, STAT-11
TEST(TdpAddressSpaceTest, ProtectingAGfnInOneSpaceLeavesTheOtherAlone) {
  MemslotConfig smm = Slot(0, 0, 4 * kMiB);
  smm.address_space = 1;
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), smm});
  Write(*vm, 5 * kPageSize);
  TableCache cache(vm->state().pool);
  auto root = vm->state().tdp.LoadRoot(1, cache);
  ASSERT_TRUE(root.ok());
  PageFault fault = FaultOn(*vm, Gfn(5), AccessKind::kWrite, 1);
  ASSERT_EQ(MapInto(*vm, **root, fault, cache), FaultResult::kFixed);
  EXPECT_EQ(vm->Stats().pages_4k, 2u) << "in two roots";
  EXPECT_TRUE(WriteProtect(*vm, GfnRange::Of(Gfn(0), 1024)));
  EXPECT_FALSE(EntryOf(*vm, Gfn(5), Level::k4K, 0).Load().IsWritable());
  EXPECT_TRUE(EntryOf(*vm, Gfn(5), Level::k4K, 1).Load().IsWritable());
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_TRUE(vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(5), Level::k4K));
  }
  EXPECT_TRUE(EntryOf(*vm, Gfn(5), Level::k4K, 1).Load().IsWritable());
  Flush(*vm);
  root->reset();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-23
TEST(TdpNoYieldTest, SingleSteppedOperationsKeepTheLockThoughSomebodyWaits) {
  auto vm = SmallAndHuge();
  TdpMmu& tdp = vm->state().tdp;
  const auto acquisitions = [&] {
    uint64_t sum = 0;
    const LockMetrics metrics = vm->state().mmu_lock.Snapshot();
    for (const auto& by_op : metrics.ops) {
      for (const LockOpMetrics& op : by_op) sum += op.acquisitions;
    }
    return sum;
  };
  std::unique_ptr<Waiter> waiter;
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    const uint64_t before = acquisitions();
    EXPECT_TRUE(tdp.WriteProtectMasked(lock, 0, Gfn(0), ~uint64_t{0}, nullptr));
    EXPECT_TRUE(tdp.WriteProtectGfn(lock, 0, Gfn(600), Level::k2M));
    const GfnRange range = GfnRange::Of(Gfn(0), 1024);
    AgeResult aged = AgeResult::For(range);
    tdp.Age(0, range, AgeMode::kTestAndClear, AgeScan::kAllLeafs, aged,
            nullptr);
    EXPECT_EQ(aged.young_page_count, 1024u);
    EXPECT_EQ(acquisitions(), before) << "the waiter did not get its turn";
    EXPECT_TRUE(lock.NeedYield());
  }
  waiter.reset();
  {
    TableCache cache(vm->state().pool);
    ASSERT_TRUE(cache.TopUp(TdpMmu::kTablesPerFault).ok());
    PageFault fault = FaultOn(*vm, Gfn(600), AccessKind::kWrite);
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kFault);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    const uint64_t before = acquisitions();
    EXPECT_EQ(tdp.Map(lock, *vm->state().vcpus[0]->root(), fault, cache),
              FaultResult::kFixed);
    EXPECT_EQ(acquisitions(), before);
    EXPECT_TRUE(lock.NeedYield());
  }
  waiter.reset();
}

}  // namespace
}  // namespace mmu
