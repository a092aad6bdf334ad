// The limits of a throttle that bind where each block that is split owes a TLB
// invalidation: the budget of flushes, and the share of time for which vCPUs
// stall.

#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vcpu/fault_accounting.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Await;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Slot;
using ::mmu::testing::Write;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr int kBlocks = 4;

// A VM whose guest has written to each of kBlocks blocks of 2 MiB. Slot 1 has
// memory that it has not used.
std::unique_ptr<Vm> Make(MmuMode mmu) {
  VmConfig config;
  config.mmu = mmu;
  if (mmu == MmuMode::kStage2) {
    config.stage2.eager_split_chunk_bytes = 2 * kMiB;
  }
  config.memslots = {Slot(0, 0, kBlocks * 2 * kMiB, Level::k2M),
                     Slot(1, kGiB, kMiB)};
  auto vm = MakeVmFrom(config);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    EXPECT_EQ(Write(*vm, block * 2 * kMiB, block), AccessOutcome::kDone);
  }
  return vm;
}

absl::Duration ThrottledBy(const SplitProgress& progress, ThrottleLimit limit) {
  return progress.throttled[static_cast<int>(limit)];
}

SplitProgress SplitAll(Vm& vm, const Throttle& throttle) {
  SplitRequest request;
  request.throttle = throttle;
  const auto job = SplitJob::Create(vm.state(), request).value();
  EXPECT_TRUE(job->Run().ok());
  EXPECT_EQ(job->Progress().split_2m_count, kBlocks);
  return job->Progress();
}

// Covers: ARM-24
TEST(Stage2ThrottleTest, ABudgetOfFlushesSetsThePace) {
  Throttle throttle;
  throttle.max_flushes_per_second = 50;
  {
    auto vm = Make(MmuMode::kStage2);
    const SplitProgress progress = SplitAll(*vm, throttle);
    EXPECT_EQ(progress.cost.tlb_flush_count, kBlocks);
    // 20 ms for each, less the time that the split itself takes.
    EXPECT_GT(ThrottledBy(progress, ThrottleLimit::kFlush),
              absl::Milliseconds(20));
    EXPECT_GE(progress.cost.wall + ThrottledBy(progress, ThrottleLimit::kFlush),
              absl::Milliseconds(20 * kBlocks));
  }
  // The splits of the TDP MMU owe none.
  auto vm = Make(MmuMode::kTdp);
  const SplitProgress progress = SplitAll(*vm, throttle);
  EXPECT_EQ(progress.cost.tlb_flush_count, 0);
  EXPECT_EQ(ThrottledBy(progress, ThrottleLimit::kFlush), absl::ZeroDuration());
}

// A vCPU faults while a block is broken, and waits for mmu_lock until the split
// drops it. The split then pauses so long that the wait is at most the share
// that the throttle allows. The fault is one of those that are timed; each of
// them stands for FaultAccounting::kSampling faults.
TEST(Stage2ThrottleTest, TimeForWhichAVcpuStallsIsPausedFor) {
  constexpr auto kStall = std::chrono::milliseconds(2);
  constexpr double kRatio = 0.5;
  for (const double ratio : {kRatio, 0.0}) {
    auto vm = Make(MmuMode::kStage2);
    uint64_t page = 0;
    while ((vm->Stats().vcpus.pf_taken + 1) % FaultAccounting::kSampling != 0) {
      ASSERT_EQ(Write(*vm, kGiB + ++page * kPageSize, 1), AccessOutcome::kDone);
    }
    std::thread guest;
    int breaks = 0;
    SplitProgress progress;
    {
      LockTrace trace([&](const LockTrace::Event& event) {
        if (event.point == HookPoint::kBreakToTlbi && ++breaks == 1) {
          guest = std::thread(
              [&] { EXPECT_EQ(Write(*vm, kGiB, 1), AccessOutcome::kDone); });
          Await("the fault waits for mmu_lock",
                [&] { return vm->state().mmu_lock.IsContended(); });
          std::this_thread::sleep_for(kStall);
        } else if (event.point == HookPoint::kTopUp && guest.joinable()) {
          // The lock is dropped: the stall ends and is counted.
          guest.join();
        }
      });
      Throttle throttle;
      throttle.chunk_bytes = kBlocks * 2 * kMiB;
      throttle.max_lock_hold = absl::Seconds(1);
      throttle.max_vcpu_stall_ratio = ratio;
      progress = SplitAll(*vm, throttle);
    }
    ASSERT_FALSE(guest.joinable());
    const absl::Duration paused = ThrottledBy(progress, ThrottleLimit::kStall);
    if (ratio == 0) {
      EXPECT_EQ(paused, absl::ZeroDuration());
    } else {
      EXPECT_GE(progress.cost.wall + paused,
                FaultAccounting::kSampling * absl::FromChrono(kStall) / kRatio);
    }
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

}  // namespace
}  // namespace mmu
