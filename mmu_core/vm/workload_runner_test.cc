#include "mmu_core/vm/run/workload_runner.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/stamp.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Slot;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr absl::Duration kLong = absl::Seconds(60);

using State = WorkloadProgress::State;

// Writes to the first word of page `vcpu`, `count` times or endlessly, and then
// ends with `end`.
class Writer : public AccessSource {
 public:
  Writer(uint64_t vcpu, uint64_t count, absl::Status end = absl::OkStatus())
      : gpa_(vcpu * kPageSize), left_(count), end_(std::move(end)) {}
  bool Next(GuestAccess* access) override {
    if (left_ == 0) return false;
    --left_;
    *access = {gpa_, 8, AccessKind::kWrite};
    return true;
  }
  absl::Status status() const override { return end_; }

 private:
  const uint64_t gpa_;
  uint64_t left_;
  const absl::Status end_;
};

constexpr uint64_t kForEver = ~uint64_t{0};

WorkloadOptions Writers(int vcpus, uint64_t count = kForEver) {
  WorkloadOptions options;
  for (int i = 0; i < vcpus; ++i) {
    options.sources.push_back(std::make_unique<Writer>(i, count));
  }
  return options;
}

std::unique_ptr<Vm> SmallVm(int vcpus = 2) {
  return MakeVm({Slot(0, 0, kMiB)}, vcpus);
}

uint64_t StampAt(const Vm& vm, uint64_t gpa) {
  uint64_t word = 0;
  EXPECT_TRUE(
      vm.ReadMemory(Gpa(gpa),
                    absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
          .ok());
  return word;
}

uint64_t Accesses(const Vm& vm) { return vm.Workload()->stats.accesses; }

// The accesses since the VM was made.
uint64_t AllAccesses(const Vm& vm) {
  uint64_t sum = 0;
  for (const VcpuStatsSnapshot& vcpu : vm.VcpuStats()) sum += vcpu.accesses;
  return sum;
}

void WaitForAccesses(const Vm& vm, uint64_t n) {
  while (Accesses(vm) < n) std::this_thread::yield();
}

TEST(WorkloadRunnerTest, EachVcpuRunsItsSourceToItsEnd) {
  auto vm = SmallVm();
  ASSERT_TRUE(vm->StartWorkload(Writers(2, 1000)).ok());
  ASSERT_TRUE(vm->WaitWorkload(kLong));
  const auto progress = vm->Workload();
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->state, State::kDone);
  EXPECT_EQ(progress->stats.accesses, 2000u);
  EXPECT_EQ(progress->stats.writes, 2000u);
  EXPECT_TRUE(progress->error.ok());
  // Each page holds the last write of its vCPU.
  EXPECT_EQ(StampAt(*vm, 0), MakeStamp(0, 1000));
  EXPECT_EQ(StampAt(*vm, kPageSize), MakeStamp(1, 1000));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(WorkloadRunnerTest, WithoutAThreadForEachVcpuNoneRuns) {
  for (const int64_t threads : {0, 1, 2}) {
    auto vm = SmallVm(3);
    LimitThreads(threads);
    const absl::Status none = vm->StartWorkload(Writers(3));
    LimitThreads(-1);
    EXPECT_EQ(DetailOf(none).reason, Reason::kThreadsExhausted) << threads;
    ASSERT_TRUE(vm->WaitWorkload(kLong));
    EXPECT_EQ(DetailOf(vm->Workload().status()).reason,
              Reason::kWorkloadNotRunning);
    EXPECT_EQ(AllAccesses(*vm), 0u) << "nothing happened to the guest";
    ASSERT_TRUE(vm->StartWorkload(Writers(3, 10)).ok());
    ASSERT_TRUE(vm->WaitWorkload(kLong));
    EXPECT_EQ(vm->Workload()->state, State::kDone);
    EXPECT_EQ(Accesses(*vm), 30u);
    // The failed start leaves the result of the previous workload.
    LimitThreads(threads);
    EXPECT_FALSE(vm->StartWorkload(Writers(3)).ok());
    LimitThreads(-1);
    EXPECT_EQ(vm->Workload()->state, State::kDone);
    EXPECT_EQ(Accesses(*vm), 30u);
    EXPECT_EQ(AllAccesses(*vm), 30u);
  }
}

TEST(WorkloadRunnerTest, NothingRunsBeforeItIsConfirmed) {
  auto vm = SmallVm();
  const absl::Status refused = vm->StartWorkload(Writers(2), [&] {
    EXPECT_EQ(vm->Workload()->state, State::kRunning);
    // The vCPUs can be paused meanwhile, like those of any workload.
    vm->PauseVcpus();
    EXPECT_EQ(AllAccesses(*vm), 0u);
    vm->ResumeVcpus();
    return absl::UnavailableError("no");
  });
  EXPECT_EQ(refused, absl::UnavailableError("no"));
  EXPECT_TRUE(vm->WaitWorkload(absl::ZeroDuration())) << "it has ended";
  EXPECT_EQ(AllAccesses(*vm), 0u);
  EXPECT_EQ(DetailOf(vm->Workload().status()).reason,
            Reason::kWorkloadNotRunning);
  ASSERT_TRUE(vm->StartWorkload(Writers(2, 10), [&] {
                  EXPECT_EQ(AllAccesses(*vm), 0u);
                  return absl::OkStatus();
                }).ok());
  ASSERT_TRUE(vm->WaitWorkload(kLong));
  EXPECT_EQ(Accesses(*vm), 20u);
}

TEST(WorkloadRunnerTest, ABadStartIsNotEvenAskedToBeConfirmed) {
  auto vm = SmallVm();
  bool asked = false;
  const auto confirm = [&] {
    asked = true;
    return absl::OkStatus();
  };
  EXPECT_FALSE(vm->StartWorkload(Writers(3), confirm).ok());
  LimitThreads(1);
  EXPECT_FALSE(vm->StartWorkload(Writers(2), confirm).ok());
  LimitThreads(-1);
  EXPECT_FALSE(asked);
}

TEST(WorkloadRunnerTest, NoAccessIsUnderWayWhilePaused) {
  auto vm = SmallVm();
  ASSERT_TRUE(vm->StartWorkload(Writers(2)).ok());
  for (int round = 0; round < 20; ++round) {
    WaitForAccesses(*vm, Accesses(*vm) + 100);
    vm->PauseVcpus();
    EXPECT_TRUE(vm->vcpus_paused());
    EXPECT_TRUE(vm->Workload()->paused);
    const uint64_t stamps[] = {StampAt(*vm, 0), StampAt(*vm, kPageSize)};
    const uint64_t accesses = Accesses(*vm);
    // Gives a vCPU that was not stopped time to show itself.
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
    EXPECT_EQ(StampAt(*vm, 0), stamps[0]);
    EXPECT_EQ(StampAt(*vm, kPageSize), stamps[1]);
    EXPECT_EQ(Accesses(*vm), accesses);
    vm->ResumeVcpus();
    EXPECT_FALSE(vm->vcpus_paused());
  }
  vm->StopWorkload();
  EXPECT_EQ(vm->Workload()->state, State::kStopped);
}

TEST(WorkloadRunnerTest, AnAuditDoesNotUndoAPause) {
  auto vm = SmallVm();
  ASSERT_TRUE(vm->StartWorkload(Writers(2)).ok());
  WaitForAccesses(*vm, 100);
  EXPECT_EQ(AuditFindings(*vm), "");
  vm->PauseVcpus();
  EXPECT_EQ(AuditFindings(*vm), "");
  EXPECT_TRUE(vm->vcpus_paused());
  const uint64_t accesses = Accesses(*vm);
  for (int i = 0; i < 100; ++i) std::this_thread::yield();
  EXPECT_EQ(Accesses(*vm), accesses);
  vm->ResumeVcpus();
  WaitForAccesses(*vm, accesses + 100);
}

TEST(WorkloadRunnerTest, AWorkloadStartedWhilePausedWaits) {
  auto vm = SmallVm();
  vm->PauseVcpus();
  ASSERT_TRUE(vm->StartWorkload(Writers(2, 10)).ok());
  EXPECT_FALSE(vm->WaitWorkload(absl::Milliseconds(5)));
  EXPECT_EQ(Accesses(*vm), 0u);
  vm->ResumeVcpus();
  EXPECT_TRUE(vm->WaitWorkload(kLong));
  EXPECT_EQ(Accesses(*vm), 20u);
}

TEST(WorkloadRunnerTest, APausedWorkloadCanBeStopped) {
  auto vm = SmallVm();
  ASSERT_TRUE(vm->StartWorkload(Writers(2)).ok());
  vm->PauseVcpus();
  vm->StopWorkload();
  EXPECT_EQ(vm->Workload()->state, State::kStopped);
  EXPECT_TRUE(vm->WaitWorkload(absl::ZeroDuration()));
}

TEST(WorkloadRunnerTest, AVmMayDieWithItsWorkloadRunningOrPaused) {
  auto running = SmallVm();
  ASSERT_TRUE(running->StartWorkload(Writers(2)).ok());
  running.reset();
  auto paused = SmallVm();
  ASSERT_TRUE(paused->StartWorkload(Writers(2)).ok());
  paused->PauseVcpus();
  paused.reset();
}

TEST(WorkloadRunnerTest, ASourceThatFailsEndsTheWorkloadOfAllVcpus) {
  auto vm = SmallVm();
  WorkloadOptions options = Writers(1);
  options.sources.push_back(
      std::make_unique<Writer>(1, 50, absl::DataLossError("bad block")));
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  ASSERT_TRUE(vm->WaitWorkload(kLong));
  const auto progress = vm->Workload();
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->state, State::kFailed);
  EXPECT_EQ(progress->error, absl::DataLossError("bad block"));
  // The next workload starts without the results of this one.
  ASSERT_TRUE(vm->StartWorkload(Writers(2, 10)).ok());
  ASSERT_TRUE(vm->WaitWorkload(kLong));
  EXPECT_EQ(vm->Workload()->state, State::kDone);
  EXPECT_TRUE(vm->Workload()->error.ok());
  EXPECT_EQ(Accesses(*vm), 20u);
}

TEST(WorkloadRunnerTest, ARateLimitHolds) {
  auto vm = SmallVm(1);
  WorkloadOptions options = Writers(1, 100);
  options.accesses_per_second = 1000;
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  ASSERT_TRUE(vm->WaitWorkload(kLong));
  const auto progress = vm->Workload();
  EXPECT_EQ(progress->state, State::kDone);
  EXPECT_EQ(progress->stats.accesses, 100u);
  // The limit applies to all but the burst of 10 ms and one batch of 10. The
  // workload may take longer on a busy machine.
  EXPECT_GE(progress->running, absl::Milliseconds(80));
}

// Each wait would last a second. This many waits would exceed kWithoutWaits
// even on the busiest machine.
constexpr int kManyTimes = 40;
constexpr absl::Duration kWithoutWaits = absl::Seconds(20);

TEST(WorkloadRunnerTest, ATimeLimitEndsALimitedWorkloadInTheMiddleOfItsWait) {
  constexpr absl::Duration kDuration = absl::Milliseconds(10);
  auto vm = SmallVm(1);
  const MonotonicTime begin = MonotonicTime::Now();
  for (int i = 0; i < kManyTimes; ++i) {
    WorkloadOptions options = Writers(1);
    options.accesses_per_second = 1;
    options.max_duration = kDuration;
    ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
    ASSERT_TRUE(vm->WaitWorkload(kLong));
    EXPECT_EQ(vm->Workload()->state, State::kDone);
    EXPECT_GE(vm->Workload()->running, kDuration);
  }
  EXPECT_LT(MonotonicTime::Now() - begin, kWithoutWaits);
}

TEST(WorkloadRunnerTest, ASlowWorkloadIsStoppedAndPausedAtOnce) {
  auto vm = SmallVm(1);
  const MonotonicTime begin = MonotonicTime::Now();
  for (int i = 0; i < kManyTimes; ++i) {
    WorkloadOptions options = Writers(1);
    options.accesses_per_second = 1;
    ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
    absl::SleepFor(absl::Milliseconds(2));  // mostly, it waits by now
    vm->PauseVcpus();
    vm->ResumeVcpus();
    vm->StopWorkload();
  }
  EXPECT_LT(MonotonicTime::Now() - begin, kWithoutWaits);
}

TEST(WorkloadRunnerTest, BadStartsAreRefusedAndTheRunningOneGoesOn) {
  auto vm = SmallVm();
  EXPECT_EQ(DetailOf(vm->Workload().status()).reason,
            Reason::kWorkloadNotRunning);
  vm->StopWorkload();  // no workload runs: fine
  EXPECT_TRUE(vm->WaitWorkload(absl::ZeroDuration()));

  absl::Status status = vm->StartWorkload({});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidVcpuCount);
  EXPECT_EQ(DetailOf(status).field, "vcpu_count");
  EXPECT_EQ(DetailOf(vm->StartWorkload(Writers(3))).reason,
            Reason::kInvalidVcpuCount);
  WorkloadOptions negative = Writers(1);
  negative.accesses_per_second = -1;
  EXPECT_EQ(DetailOf(vm->StartWorkload(std::move(negative))).field,
            "accesses_per_second");
  EXPECT_FALSE(vm->Workload().ok());

  for (const int64_t count : {-1, 0, 3}) {
    EXPECT_EQ(DetailOf(vm->CheckWorkload(count, 0)).reason,
              Reason::kInvalidVcpuCount)
        << count;
  }
  EXPECT_EQ(DetailOf(vm->CheckWorkload(2, -1)).reason, Reason::kInvalidPattern);
  EXPECT_TRUE(vm->CheckWorkload(2, 0).ok());

  ASSERT_TRUE(vm->StartWorkload(Writers(1)).ok());
  status = vm->StartWorkload(Writers(1));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailOf(status).reason, Reason::kWorkloadRunning);
  WaitForAccesses(*vm, 100);
  vm->StopWorkload();
}

TEST(WorkloadRunnerTest, PausesAndStopsFromManyThreadsDoNotHang) {
  auto vm = SmallVm();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        vm->PauseVcpus();
        vm->ResumeVcpus();
        EXPECT_EQ(AuditFindings(*vm), "");
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(vm->StartWorkload(Writers(2, 2000)).ok());
    if (i % 2 == 0) vm->StopWorkload();
    ASSERT_TRUE(vm->WaitWorkload(kLong));
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace mmu
