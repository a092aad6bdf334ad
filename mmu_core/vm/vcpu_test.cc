#include "mmu_core/vm/vcpu/vcpu.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;

constexpr uint64_t kMiB = uint64_t{1} << 20;

VcpuStatsSnapshot StatsOf(const Vm& vm, int vcpu = 0) {
  return vm.VcpuStats()[vcpu];
}

// Clears W in the leaf of `gfn` without a flush.
void TakeWriteWithoutFlush(Vm& vm, Gfn gfn) {
  RcuReadGuard rcu;
  TdpRoot* root = vm.state().tdp.roots().FirstRcu(RootFilter::kValid, 0);
  for (TdpCursor c(root->table(), root->level(), GfnRange::Of(gfn, 1),
                   Level::k4K);
       c.Valid(); c.Next()) {
    if (c.IsPresentLeaf()) c.slot().FetchAnd(~spte_bits::kWrite);
  }
}

void FlushAll(Vm& vm) {
  vm.state().tlb.Flush(FlushScope::kVm, FlushReason::kWriteProtect, nullptr);
}

// Covers: TLB-08, TLB-12
TEST(VcpuTest, AStaleWritableTranslationIsUsedUntilTheFlushAndNotAfterIt) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x3000, 1);
  TakeWriteWithoutFlush(*vm, Gfn(3));
  const uint64_t taken_before = StatsOf(*vm).pf_taken;

  Write(*vm, 0x3000, 2);
  EXPECT_EQ(StatsOf(*vm).pf_taken, taken_before) << "the TLB still allows it";
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(3)).IsWritable());

  FlushAll(*vm);
  Write(*vm, 0x3000, 3);
  EXPECT_EQ(StatsOf(*vm).pf_taken, taken_before + 1);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(3)).IsWritable());
  EXPECT_EQ(ReadValue(*vm, 0x3000), 3u);
}

TEST(VcpuTest, WhatIsReadIsWhatAnyVcpuWroteLast) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 2);
  Write(*vm, 0x5010, 11, 0);
  EXPECT_EQ(ReadValue(*vm, 0x5010, 1), 11u);
  Write(*vm, 0x5010, 12, 1);
  EXPECT_EQ(ReadValue(*vm, 0x5010, 0), 12u);
  // An access reads the aligned word around its address.
  EXPECT_EQ(ReadValue(*vm, 0x5017, 0), 12u);
  EXPECT_EQ(ReadValue(*vm, 0x5018, 0), 0u);
}

TEST(VcpuTest, AFetchReadsAndMapsLikeARead) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x4000, 77);
  uint64_t word = 0;
  EXPECT_EQ(vm->state().vcpus[0]->Access(Gpa(0x4000), AccessKind::kExec, &word),
            AccessOutcome::kDone);
  EXPECT_EQ(word, 77u);
}

TEST(VcpuTest, MemoryWithoutContentsReadsAsZeroAndIsTrackedAllTheSame) {
  auto vm =
      MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M, BackingKind::kMetadataOnly)});
  Write(*vm, 0x4000, 77);
  EXPECT_EQ(ReadValue(*vm, 0x4000), 0u);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"}));
}

// Covers: STAT-20, STAT-21, STAT-22, PF-02
TEST(VcpuTest, EachFaultIsCountedByItsResult) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x1000);  // a fault that is fixed
  Read(*vm, 0x1000);   // no fault
  EXPECT_EQ(Read(*vm, 64 * kMiB), AccessOutcome::kEmulated);
  EXPECT_EQ(Write(*vm, 64 * kMiB), AccessOutcome::kEmulated);  // remembered
  const VcpuStatsSnapshot stats = StatsOf(*vm);
  EXPECT_EQ(stats.pf_taken, 2u);
  EXPECT_EQ(stats.pf_fixed, 1u);
  EXPECT_EQ(stats.pf_emulate, 1u);
  EXPECT_EQ(stats.pf_spurious, 0u);
  EXPECT_EQ(stats.pf_fast, 0u);
  EXPECT_EQ(stats.accesses, 4u);
  EXPECT_EQ(stats.writes, 2u);
  using Kind = AccessKind;
  EXPECT_EQ(stats.faults[static_cast<int>(FaultResult::kFixed)]
                        [static_cast<int>(Kind::kWrite)],
            1u);
  EXPECT_EQ(stats.faults[static_cast<int>(FaultResult::kEmulate)]
                        [static_cast<int>(Kind::kRead)],
            1u);
}

TEST(VcpuTest, AnAccessIsCountedOnceWhicheverMmuServesIt) {
  for (const MmuMode mmu :
       {MmuMode::kTdp, MmuMode::kTdpShadow, MmuMode::kNested}) {
    VmConfig config;
    config.mmu = mmu;
    config.memslots = {Slot(0, 0, kMiB)};
    auto vm = testing::MakeVmFrom(config);
    Write(*vm, 0);
    Read(*vm, 0);
    Read(*vm, kPageSize);
    const VcpuStatsSnapshot stats = vm->VcpuStats()[0];
    EXPECT_EQ(stats.accesses, 3u) << static_cast<int>(mmu);
    EXPECT_EQ(stats.writes, 1u) << static_cast<int>(mmu);
  }
}

// Covers: STAT-24, PF-17, PF-18
TEST(VcpuTest, AFastFaultIsFixedAndFastAndFlushesNobody) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 2);
  Write(*vm, 0x1000, 1, 0);
  Write(*vm, 0x1000, 1, 1);
  TakeWriteWithoutFlush(*vm, Gfn(1));
  FlushAll(*vm);
  const uint64_t requests = vm->Stats().flush.remote_tlb_flush_requests;
  Write(*vm, 0x1000, 2, 0);
  const VcpuStatsSnapshot stats = StatsOf(*vm);
  EXPECT_EQ(stats.pf_taken, 2u);
  EXPECT_EQ(stats.pf_fixed, 2u);
  EXPECT_EQ(stats.pf_fast, 1u);
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, requests);
}

// Covers: STAT-27, TLB-02
TEST(VcpuTest, ARequestedFlushIsDoneBeforeTheNextAccessAndCountedOnce) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x1000);
  EXPECT_EQ(StatsOf(*vm).tlb_flush, 0u);
  FlushAll(*vm);
  FlushAll(*vm);
  // The vCPU is not in guest mode, so it gets a request and no interrupt.
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, 2u);
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush, 0u);
  EXPECT_EQ(StatsOf(*vm).tlb_flush, 0u);
  constexpr auto kFlush = static_cast<int>(StallCause::kFlush);
  EXPECT_EQ(StatsOf(*vm).stall_nanos[kFlush], 0);
  Read(*vm, 0x1000);
  EXPECT_EQ(StatsOf(*vm).tlb_flush, 1u);
  EXPECT_GT(StatsOf(*vm).stall_nanos[kFlush], 0);
}

TEST(VcpuTest, OnlyFaultsThatTheLogCausedAreCountedAsItsOwn) {
  auto vm = MakeVm({Slot(0, 0, kMiB), Slot(1, kMiB, kMiB)});
  for (const uint64_t gpa : {0x1000, 0x2000, 0x101000}) Write(*vm, gpa);
  DirtyLogConfig config;
  config.slots = {0};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  EXPECT_EQ(StatsOf(*vm).dirty_log_faults, 0u);
  Write(*vm, 0x1000);
  Write(*vm, 0x2000);
  Write(*vm, 0x2008);    // already writable
  Read(*vm, 0x3000);     // no write, though the leaf is writable and dirty
  Write(*vm, 0x4000);    // not mapped before: would fault without the log, too
  Write(*vm, 0x101000);  // a slot that does not log
  EXPECT_EQ(StatsOf(*vm).dirty_log_faults, 2u);
  EXPECT_EQ(StatsOf(*vm).dirty_pages, 4u);
}

TEST(VcpuTest, AFlushInterruptsOnlyVcpusInGuestMode) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 3);
  vm->state().vcpus[1]->EnterGuest();
  MmuCost cost;
  vm->state().tlb.Flush(FlushScope::kVm, FlushReason::kZap, &cost);
  EXPECT_EQ(cost.vcpus_kicked_count, 1);
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush, 1u);
  vm->state().vcpus[1]->ExitGuest();
}

// Covers: TLB-04
TEST(VcpuTest, ANewRootStartsWithAnEmptyTlb) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x1000);
  Vcpu& vcpu = *vm->state().vcpus[0];
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(1)), nullptr);
  const uint64_t old_root = vcpu.root()->id();
  ASSERT_TRUE(vm->SetMemslot(Slot(7, 64 * kMiB, kMiB)).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(7, 64 * kMiB, 0)).ok());  // zaps all
  Read(*vm, 0x2000);
  EXPECT_NE(vcpu.root()->id(), old_root);
  EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(1)), nullptr);
  EXPECT_NE(vcpu.tlb().Lookup(PageNumber(2)), nullptr);
  const FlushMetrics flush = vm->Stats().flush;
  EXPECT_EQ(flush.Flushes(FlushScope::kVcpu, FlushReason::kRoot), 2u);
}

// The vCPU loses the request that would make it drop its root, so only the load
// of the new root can empty the TLB.
// Covers: TLB-04
TEST(VcpuTest, TheLoadOfARootEmptiesTheTlbWithoutARequest) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x1000);
  Vcpu& vcpu = *vm->state().vcpus[0];
  {
    MutexLock lock(vm->state().slots.slots_lock);
    vm->state().tdp.FastZapAll(nullptr);
  }
  vcpu.gate().TakeRequests();
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(1)), nullptr);
  ASSERT_TRUE(vcpu.EnsureRoot().ok());
  EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(1)), nullptr);
  const FlushMetrics flush = vm->Stats().flush;
  EXPECT_EQ(flush.Flushes(FlushScope::kVcpu, FlushReason::kRoot), 2u);
  EXPECT_EQ(flush.remote_tlb_flush_requests, 0u);
  EXPECT_EQ(StatsOf(*vm).tlb_flush, 0u) << "only requested flushes count here";
}

class FlushedVcpuTest : public ::testing::TestWithParam<TlbOptions::Flushes> {};

INSTANTIATE_TEST_SUITE_P(Tlbs, FlushedVcpuTest,
                         ::testing::Values(TlbOptions::Flushes::kWhole,
                                           TlbOptions::Flushes::kPrecise),
                         [](const auto& p) {
                           return std::string(
                               p.param == TlbOptions::Flushes::kWhole
                                   ? "Whole"
                                   : "Precise");
                         });

// Covers: TLB-01, TLB-04
TEST_P(FlushedVcpuTest, OfTheRequestsOnlyAFlushEmptiesTheTlbAndCounts) {
  VmConfig config;
  config.memslots = {Slot(0, 0, kMiB)};
  config.tlb.flushes = GetParam();
  const absl::StatusOr<std::unique_ptr<Vm>> created = Vm::Create(config);
  ASSERT_TRUE(created.ok()) << created.status();
  Vm* const vm = created->get();
  Write(*vm, 0x1000);
  Vcpu& vcpu = *vm->state().vcpus[0];
  const uint64_t root = vcpu.root()->id();
  for (const uint32_t request : {kExitGuest, kFreeObsoleteRoots}) {
    vm->state().tlb.Request(request);
    EXPECT_TRUE(vcpu.HandleRequests());
    EXPECT_NE(vcpu.tlb().Lookup(PageNumber(1)), nullptr) << request;
    EXPECT_EQ(StatsOf(*vm).tlb_flush, 0u) << request;
  }
  FlushAll(*vm);
  EXPECT_TRUE(vcpu.HandleRequests());
  EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(1)), nullptr);
  EXPECT_EQ(StatsOf(*vm).tlb_flush, 1u);
  EXPECT_EQ(vcpu.root()->id(), root) << "it is valid";
}

// Covers: TDP-03
TEST(VcpuTest, ARootOutlivesItsLastVcpuAndIsFoundAgain) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 2);
  Write(*vm, 0x1000, 5, 0);
  const uint64_t id = vm->state().vcpus[0]->root()->id();
  vm->state().vcpus[0]->ReleaseRoot();
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwad"}));
  EXPECT_EQ(ReadValue(*vm, 0x1000, 1), 5u);
  EXPECT_EQ(vm->state().vcpus[1]->root()->id(), id);
  EXPECT_EQ(StatsOf(*vm, 1).pf_taken, 0u);
}

// Covers: AGE-16, TLB-07
TEST(VcpuTest, AnAgedPageLooksIdleAsLongAsItsTranslationIsCached) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 0x1000);
  const GfnRange range = GfnRange::Of(Gfn(0), 16);
  ASSERT_EQ(vm->Age(range, AgeMode::kTestAndClear, nullptr)->young_page_count,
            1u);
  Read(*vm, 0x1000);
  EXPECT_EQ(vm->Age(range, AgeMode::kTest, nullptr)->young_page_count, 0u);
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, 0u);
  FlushAll(*vm);
  Read(*vm, 0x1000);
  const absl::StatusOr<AgeResult> aged =
      vm->Age(range, AgeMode::kTest, nullptr);
  ASSERT_TRUE(aged.ok());
  EXPECT_EQ(aged->young_page_count, 1u);
  EXPECT_THAT(aged->young, ElementsAre(0b10));
}

// Covers: TLB-07
TEST(VcpuTest, ANewMappingNeedsNoFlush) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Read(*vm, 0x1000);
  Write(*vm, 0x2000);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwad"},
                          Mapping{2, Level::k4K, "rwad"}));
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, 0u);
}

TEST(VcpuTest, AVcpuWithoutMemoryForTablesSaysSoAndChangesNothing) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 2);
  Read(*vm, 0x5000, /*vcpu=*/1);
  RcuBarrier();
  TablePool& pool = TablePool::Process();
  // The limit leaves vCPU 0, whose cache is still empty, without tables.
  pool.SetMaxTables(pool.tables_out());
  EXPECT_EQ(Write(*vm, 0x1000), AccessOutcome::kError);
  const absl::Status status = vm->state().vcpus[0]->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kMmuPagesExhausted);
  EXPECT_EQ(vm->Stats().pages_4k, 1u) << "only what was there before";
  pool.SetMaxTables(0);
  EXPECT_EQ(Write(*vm, 0x1000), AccessOutcome::kDone);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The same table is the root again, so the tag of its translations is the same.
// Nothing was flushed while no vCPU used them, so the vCPU does it now.
// Covers: TLB-04
TEST(VcpuTest, ATableThatIsARootAgainTranslatesNothing) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Write(*vm, 5 * kPageSize);
  Vcpu& vcpu = *vm->state().vcpus[0];
  const PageTable* const table = vcpu.root()->table();
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(5)), nullptr);
  vcpu.ReleaseRoot();
  EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(5)), nullptr) << "no root";
  ASSERT_TRUE(vcpu.EnsureRoot().ok());
  ASSERT_EQ(vcpu.root()->table(), table);
  EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(5)), nullptr);
}

}  // namespace
}  // namespace mmu
