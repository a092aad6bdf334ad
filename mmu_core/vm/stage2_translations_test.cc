// Translations of stage 2 that vCPUs have cached: TLB conflicts, what each
// flush is for, what a vCPU invalidates for itself, and the Access flag.

#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_vm_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::ArmSkipOneFlush;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::Config;
using ::mmu::testing::FlushRequests;
using ::mmu::testing::HostPagesOf;
using ::mmu::testing::HostUnmaps;
using ::mmu::testing::kBlocks;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeStage2Vm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::Stage2LeafOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A guest reads a page of a block that is being split, whose translation it
// has cached.
// Covers: ARM-09
TEST(Stage2TranslationsTest,
     AConflictAbortDropsTheTranslationsAndTheAccessIsRepeated) {
  Stage2Config options;
  options.bbm_level = 2;
  auto vm = MakeStage2Vm(2 * kMiB, options);
  ASSERT_EQ(Write(*vm, kPageSize, 5), AccessOutcome::kDone);
  int reads = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kBreakToTlbi || ++reads != 1) return;
      std::thread([&] {
        EXPECT_EQ(ReadValue(*vm, kPageSize), 5u);
        EXPECT_EQ(vm->Stats().vcpus.tlb_conflict_aborts, 1u);
        // The vCPU has dropped the block.
        EXPECT_EQ(ReadValue(*vm, kPageSize), 5u);
      }).join();
    });
    ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  }
  EXPECT_GE(reads, 1);
  EXPECT_EQ(vm->Stats().vcpus.tlb_conflict_aborts, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// At level 0 only a bug can bring two translations.
// Covers: ARM-09
TEST(Stage2TranslationsTest, AConflictAbortWithoutFeatBbmIsAnError) {
  auto vm = MakeStage2Vm(2 * kMiB);
  ArmSkipOneFlush(FlushReason::kBbm, 1);
  ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  ArmSkipOneFlush(FlushReason::kBbm, 0);
  uint64_t word = 0;
  EXPECT_EQ(
      vm->state().vcpus[0]->Access(Gpa(kPageSize), AccessKind::kRead, &word),
      AccessOutcome::kError);
  const absl::Status& status = vm->state().vcpus[0]->status();
  EXPECT_EQ(DetailOf(status).reason, Reason::kInternalError);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("TLB conflict abort at gpa 0x1000"));
  EXPECT_EQ(vm->Stats().vcpus.tlb_conflict_aborts, 0u);
}

// Covers: ARM-02, ARM-39
TEST(Stage2TranslationsTest, AVcpuForgetsATableThatWasUnlinked) {
  // One invalidation for all pages: more of them than the vCPU's queue holds
  // would empty its TLB.
  Stage2Config options;
  options.tlbi_range = Stage2Config::TlbiRange::kYes;
  auto vm = MakeStage2Vm(2 * kMiB, options);
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  ASSERT_EQ(Write(*vm, kPageSize, 5), AccessOutcome::kDone);
  const uint64_t tables = vm->Stats().table_pages;
  HostUnmaps(*vm, HostPagesOf(*vm, 0, 0, kPages2M));
  EXPECT_EQ(vm->Stats().table_pages, tables - 1);
  RcuBarrier();
  // A vCPU that kept the table would read from it without an end.
  ASSERT_EQ(AuditFindings(*vm), "");
  EXPECT_EQ(ReadValue(*vm, kPageSize), 5u);
}

// What each flush is for: without it a write is in no log, or goes to memory
// that the host has taken.
// Covers: DL-05, DL-17
TEST(Stage2TranslationsTest, WithoutItsFlushAWriteGoesUnnoticed) {
  for (const bool skip : {false, true}) {
    SCOPED_TRACE(skip);
    const auto arm = [&](FlushReason reason) {
      ArmSkipOneFlush(reason, skip ? 1 : 0);
    };
    const std::vector<uint64_t> noticed =
        skip ? std::vector<uint64_t>{} : std::vector<uint64_t>{3};
    auto vm = MakeStage2Vm(0);
    arm(FlushReason::kWriteProtect);
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kNone)).ok());
    ASSERT_EQ(Write(*vm, 3 * kPageSize, 1), AccessOutcome::kDone);
    EXPECT_EQ(SealAndList(*vm, 0), noticed);

    vm = MakeStage2Vm(2 * kMiB);
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
    ASSERT_EQ(Write(*vm, 3 * kPageSize, 1), AccessOutcome::kDone);
    uint64_t epoch = 0;
    EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
    arm(FlushReason::kClearDirty);
    ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                                MaskOf(kBlocks * kPages2M, {3}), nullptr)
                    .ok());
    ASSERT_EQ(Write(*vm, 3 * kPageSize, 2), AccessOutcome::kDone);
    EXPECT_EQ(SealAndList(*vm, 0), noticed);

    vm = MakeStage2Vm(0);
    arm(FlushReason::kNotifier);
    HostUnmaps(*vm, HostPagesOf(*vm, 0, 0, kPages2M));
    ArmSkipOneFlush(FlushReason::kNotifier, 0);
    const uint64_t faults = vm->Stats().vcpus.pf_taken;
    ASSERT_EQ(Write(*vm, 3 * kPageSize, 3), AccessOutcome::kDone);
    EXPECT_EQ(vm->Stats().vcpus.pf_taken, skip ? faults : faults + 1);
  }
}

// More rights in place: the vCPU drops what it has cached, and no other does.
// Covers: ARM-07
TEST(Stage2TranslationsTest, AVcpuThatGetsMoreRightsInvalidatesForItselfAlone) {
  auto vm = MakeStage2Vm(2 * kMiB);
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  constexpr auto kLocal = static_cast<size_t>(TlbiKind::kIpaLocal);
  constexpr auto kStage1 = static_cast<size_t>(TlbiKind::kStage1Local);
  constexpr auto kBroadcast = static_cast<size_t>(TlbiKind::kIpa);
  const VmStatsSnapshot before = vm->Stats();
  ReadValue(*vm, 3 * kPageSize);
  EXPECT_EQ(vm->Stats().tlbi[kLocal], before.tlbi[kLocal]);
  ASSERT_EQ(Write(*vm, 3 * kPageSize, 1), AccessOutcome::kDone);
  EXPECT_EQ(vm->Stats().tlbi[kLocal], before.tlbi[kLocal] + 1);
  EXPECT_EQ(vm->Stats().tlbi[kStage1], before.tlbi[kStage1] + 1);
  EXPECT_EQ(vm->Stats().tlbi[kBroadcast], before.tlbi[kBroadcast]);
  // A write that is emulated gets no rights.
  MemslotConfig read_only = Slot(1, kGiB, kMiB);
  read_only.mode = MemslotConfig::Mode::kReadOnly;
  ASSERT_TRUE(vm->SetMemslot(read_only).ok());
  ReadValue(*vm, kGiB);
  const VmStatsSnapshot emulates = vm->Stats();
  EXPECT_EQ(Write(*vm, kGiB, 1), AccessOutcome::kEmulated);
  EXPECT_EQ(vm->Stats().tlbi[kLocal], emulates.tlbi[kLocal]);
}

// Covers: AGE-19
TEST(Stage2TranslationsTest, AnAgedPageFaultsUnlessTheProcessorSetsTheFlag) {
  using Af = Stage2Config::AccessFlag;
  for (const Af af : {Af::kByFault, Af::kByHardware}) {
    Stage2Config options;
    options.access_flag = af;
    auto vm = MakeStage2Vm(0, options);
    const HvaRange pages = HostPagesOf(*vm, 0, 0, kPages2M);
    const GfnRange range = GfnRange::Of(Gfn(0), kPages2M);
    const auto young = [&](FastOnly fast_only) {
      return *vm->Age(range, AgeMode::kTest, nullptr, Gfn(0),
                      MissingSlots::kRefuse, {.fast_only = fast_only});
    };
    ReadValue(*vm, 0);
    const uint64_t flushes = FlushRequests(*vm, FlushReason::kAge);
    // A translation that a vCPU has cached is not noticed.
    EXPECT_TRUE(ClearYoung(vm->state(), pages).young);
    EXPECT_FALSE(Stage2LeafOf(*vm, 0).IsAccessed());
    const uint64_t faults = vm->Stats().vcpus.pf_taken;
    EXPECT_EQ(ReadValue(*vm, 0), 0u);
    EXPECT_EQ(young(FastOnly::kNo).young_page_count, 0u);
    EXPECT_EQ(vm->Stats().vcpus.pf_taken, faults);
    EXPECT_EQ(FlushRequests(*vm, FlushReason::kAge), flushes);
    // Old pages need no flush.
    EXPECT_FALSE(ClearFlushYoung(vm->state(), pages).young);
    EXPECT_EQ(FlushRequests(*vm, FlushReason::kAge), flushes);
    vm->state().vcpus[0]->stage2()->FlushAll();
    ReadValue(*vm, 0);
    EXPECT_TRUE(ClearFlushYoung(vm->state(), pages).young);
    EXPECT_EQ(FlushRequests(*vm, FlushReason::kAge), flushes + 1);
    const uint64_t before = vm->Stats().vcpus.pf_taken;
    EXPECT_EQ(ReadValue(*vm, 0), 0u);
    EXPECT_EQ(vm->Stats().vcpus.pf_taken - before,
              af == Af::kByFault ? 1u : 0u);
    EXPECT_EQ(young(FastOnly::kNo).young_page_count, kPages2M);
    // Where a fault sets the flag, ageing takes mmu_lock, and so is left out
    // without it.
    const bool locks = af == Af::kByFault;
    const AgeResult without = young(FastOnly::kYes);
    EXPECT_EQ(without.young_page_count, locks ? 0u : kPages2M);
    EXPECT_EQ(without.reach.skipped_any(), locks);
    EXPECT_EQ(young(FastOnly::kNo).reach.was_fast, !locks);
    EXPECT_EQ(young(FastOnly::kNo).reach.lock(),
              locks ? AgingLock::kWrite : AgingLock::kNone);
    for (const AgingLock lock : {AgingLock::kNone, AgingLock::kWrite}) {
      const bool used = (lock == AgingLock::kWrite) == locks;
      EXPECT_EQ(vm->Stats()
                        .mmus[static_cast<size_t>(MmuKind::kStage2)]
                        .aged[static_cast<size_t>(lock)][0] != 0,
                used);
    }
  }
}

}  // namespace
}  // namespace mmu
