#include "mmu_core/vm/vcpu/pre_fault.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

absl::Status PreFault(Vm& vm, PreFaultRange& range) {
  return PreFaultMemory(vm.state(), *vm.state().vcpus[0], range,
                        [] { return false; });
}
absl::Status PreFault(Vm& vm, uint64_t gpa, uint64_t size_bytes) {
  PreFaultRange range = {.gpa = Gpa(gpa), .size_bytes = size_bytes};
  return PreFault(vm, range);
}
int ErrnoOf(const absl::Status& status) { return DetailOf(status).kvm_errno; }

// Covers: PF-41, TST-13
TEST(PreFaultTest, MapsTheRangeAndASecondCallAddsNothing) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  PreFaultRange range = {.gpa = Gpa(kPageSize), .size_bytes = 64 * kPageSize};
  EXPECT_TRUE(PreFault(*vm, range).ok());
  EXPECT_EQ(range.gpa, Gpa(65 * kPageSize));
  EXPECT_EQ(range.size_bytes, 0u);
  EXPECT_EQ(vm->Stats().pages_4k, 64u);
  EXPECT_TRUE(PreFault(*vm, kPageSize, 64 * kPageSize).ok());
  EXPECT_EQ(vm->Stats().pages_4k, 64u);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, 0u) << "no guest has faulted";
  // This is the guest's first access, and it needs no fault.
  Write(*vm, kPageSize, 7);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-41
TEST(PreFaultTest, AHugePageIsOneStep) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k2M)});
  PreFaultRange range = {.gpa = Gpa(kMiB), .size_bytes = 4 * kMiB};
  EXPECT_TRUE(PreFault(*vm, range).ok());
  EXPECT_EQ(range.gpa, Gpa(5 * kMiB));
  EXPECT_EQ(vm->Stats().pages_2m, 3u);
}

// Covers: DL-42
TEST(PreFaultTest, EndsWhereTheDirtyRingIsFull) {
  auto vm = MakeRingVm({Slot(0, 0, 2 * kMiB)}, 256);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  PreFaultRange range = {.gpa = Gpa(0), .size_bytes = 2 * kMiB};
  EXPECT_TRUE(PreFault(*vm, range).ok());
  const DirtyRing& ring = *vm->state().vcpus[0]->dirty_ring();
  EXPECT_EQ(range.gpa, Gpa(ring.soft_limit() * kPageSize));
  EXPECT_EQ(ring.used(), ring.soft_limit());
  const absl::Status full = PreFault(*vm, range);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(full).reason, Reason::kDirtyRingFull);
  EXPECT_EQ(ErrnoOf(full), EAGAIN);
  // The guest may not run, either.
  EXPECT_EQ(Write(*vm, 0), AccessOutcome::kDirtyRingFull);
  uint64_t epoch = 0;
  const auto pages = SealAndList(*vm, 0, &epoch);
  EXPECT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 512, MaskOf(512, pages), nullptr).ok());
  EXPECT_TRUE(PreFault(*vm, range).ok());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-11
TEST(PreFaultTest, WhatNobodyHasAccessedIsNotYoung) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  ASSERT_TRUE(PreFault(*vm, 0, 4 * kPageSize).ok());
  Read(*vm, kPageSize);
  const auto aged = vm->Age(GfnRange::Of(Gfn(0), 64), AgeMode::kTest, nullptr);
  ASSERT_TRUE(aged.ok());
  EXPECT_EQ(aged->young_page_count, 1u);
  EXPECT_EQ(aged->old_page_count, 3u);
}

// Covers: PF-41
TEST(PreFaultTest, WhatIsWrongWithTheRangeIsEinval) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  PreFaultRange flags = {.gpa = Gpa(0), .size_bytes = kPageSize, .flags = 1};
  EXPECT_EQ(ErrnoOf(PreFault(*vm, flags)), EINVAL);
  EXPECT_EQ(ErrnoOf(PreFault(*vm, 100, kPageSize)), EINVAL);
  EXPECT_EQ(ErrnoOf(PreFault(*vm, 0, 100)), EINVAL);
  EXPECT_EQ(ErrnoOf(PreFault(*vm, 0, 0)), EINVAL);
  EXPECT_EQ(ErrnoOf(PreFault(*vm, ~uint64_t{kPageMask}, 2 * kPageSize)),
            EINVAL);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
}

// Covers: PF-41, TST-13
TEST(PreFaultTest, AHoleEndsItAndIsEnoentOnlyAtTheStart) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  PreFaultRange range = {.gpa = Gpa(2 * kMiB - 2 * kPageSize),
                         .size_bytes = 8 * kPageSize};
  EXPECT_TRUE(PreFault(*vm, range).ok());
  EXPECT_EQ(range.gpa, Gpa(2 * kMiB));
  EXPECT_EQ(range.size_bytes, 6 * kPageSize);
  EXPECT_EQ(ErrnoOf(PreFault(*vm, range)), ENOENT);
  EXPECT_EQ(range.size_bytes, 6 * kPageSize);
}

// Covers: PF-41, TST-13
TEST(PreFaultTest, ASlotThatIsBeingDeletedIsEagainUnlessSomethingWasDone) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), Slot(1, 2 * kMiB, 2 * kMiB)});
  // Starts the vCPU, and fills its stock of tables.
  EXPECT_TRUE(PreFault(*vm, 0, kPageSize).ok());
  Interleaving threads;
  threads.Add("delete",
              [&] { EXPECT_TRUE(vm->SetMemslot(Slot(1, 2 * kMiB, 0)).ok()); });
  // The slot is published as invalid.
  threads.RunTo("delete", HookPoint::kGracePeriod);
  PreFaultRange range = {.gpa = Gpa(2 * kMiB - kPageSize),
                         .size_bytes = 3 * kPageSize};
  EXPECT_TRUE(PreFault(*vm, range).ok());
  EXPECT_EQ(range.gpa, Gpa(2 * kMiB));
  EXPECT_EQ(range.size_bytes, 2 * kPageSize);
  const absl::Status status = PreFault(*vm, range);
  EXPECT_EQ(DetailOf(status).reason, Reason::kMemslotChanging);
  EXPECT_EQ(ErrnoOf(status), EAGAIN);
  EXPECT_EQ(range.size_bytes, 2 * kPageSize);
  EXPECT_EQ(vm->Stats().pages_4k, 2u);
  threads.RunToEnd("delete");
  EXPECT_EQ(ErrnoOf(PreFault(*vm, range)), ENOENT);
}

// Covers: PF-41
TEST(PreFaultTest, AnInterruptionIsEintrUnlessSomethingWasDone) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  int steps = 0;
  const auto after_two = [&] { return ++steps > 2; };
  PreFaultRange range = {.gpa = Gpa(0), .size_bytes = 8 * kPageSize};
  Vcpu& vcpu = *vm->state().vcpus[0];
  EXPECT_TRUE(PreFaultMemory(vm->state(), vcpu, range, after_two).ok());
  EXPECT_EQ(range.size_bytes, 6 * kPageSize);
  EXPECT_EQ(
      ErrnoOf(PreFaultMemory(vm->state(), vcpu, range, [] { return true; })),
      EINTR);
}

// Covers: PF-41, TST-13
TEST(PreFaultTest, RacesWithASlotThatGoesAndComesEndInMemoryOrATryAgain) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 1);
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    MemslotConfig gone = Slot(0, 0, 0);
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(vm->SetMemslot(gone).ok());
      EXPECT_TRUE(vm->SetMemslot(Slot(0, 0, 2 * kMiB)).ok());
    }
    stop.store(true);
  });
  int done = 0;
  while (!stop.load()) {
    const absl::Status status = PreFault(*vm, 0, 64 * kPageSize);
    if (status.ok()) {
      ++done;
    } else {
      EXPECT_TRUE(ErrnoOf(status) == EAGAIN || ErrnoOf(status) == ENOENT)
          << status;
    }
  }
  changer.join();
  EXPECT_TRUE(PreFault(*vm, 0, 64 * kPageSize).ok());
  EXPECT_EQ(vm->Stats().pages_4k, 64u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu::testing
