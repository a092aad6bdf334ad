// A workload that is started, stopped and over at the same time.

#include "server/workload_run.h"

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/workload.h"
#include "server/base/wall_time.h"
#include "server/managed_vm.h"

namespace mmud {
namespace {

constexpr absl::Duration kLong = absl::Seconds(10);
constexpr uint64_t kMiB = uint64_t{1} << 20;

using Stop = WorkloadRun::Stop;

absl::Status Confirm() { return absl::OkStatus(); }

// Writes to one page for ever.
class Writer : public mmu::AccessSource {
 public:
  bool Next(mmu::GuestAccess* access) override {
    *access = {0, 8, mmu::AccessKind::kWrite};
    return true;
  }
  absl::Status status() const override { return absl::OkStatus(); }
};

// Ends at once, but its vCPU's thread does not before `end` is set.
class Lingering : public mmu::AccessSource {
 public:
  explicit Lingering(std::shared_future<void> end) : end_(std::move(end)) {}
  bool Next(mmu::GuestAccess*) override {
    // Its destructor is the last that the thread does, when the vCPU is idle.
    static thread_local AtEnd at_end;
    at_end.await = end_;
    return false;
  }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  struct AtEnd {
    std::shared_future<void> await;
    ~AtEnd() { await.wait(); }
  };
  const std::shared_future<void> end_;
};

mmu::WorkloadOptions Of(std::unique_ptr<mmu::AccessSource> source) {
  mmu::WorkloadOptions options;
  options.sources.push_back(std::move(source));
  return options;
}

class WorkloadRunTest : public ::testing::Test {
 protected:
  std::shared_ptr<WorkloadRun> NewRun() {
    return std::make_shared<WorkloadRun>(vm_.vm(), /*total_access_count=*/0);
  }
  // Whether the guest ends by itself; if not, it is made to.
  bool Ends() {
    const bool ends = vm_.vm().WaitWorkload(kLong);
    vm_.vm().StopWorkload();
    return ends;
  }

  ManagedVm vm_{"vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
                WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn};
};

// 1. start: it is the VM's workload. 2. stop: finds it, and no vCPU that runs.
// 3. start: starts the vCPUs.
TEST_F(WorkloadRunTest, AStopThatComesBeforeTheVcpusEndsThem) {
  const auto run = NewRun();
  ASSERT_TRUE(vm_.TrySetWorkload(run));
  run->StopNow(Stop::kRequested);
  EXPECT_FALSE(run->finished());
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  EXPECT_TRUE(Ends());
  run->RunToEnd();
  run->AwaitFinished();
  EXPECT_EQ(run->stop_reason(), Stop::kRequested);
  EXPECT_EQ(run->Progress().state, mmu::WorkloadProgress::State::kStopped);
}

// Who confirms it makes the operation, which shows it and may be cancelled.
TEST_F(WorkloadRunTest, WhileItIsStartedItIsShownAndMayBeStopped) {
  const auto run = NewRun();
  ASSERT_TRUE(vm_.TrySetWorkload(run));
  std::thread end;
  std::thread stop;
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()),
                         [&] {
                           EXPECT_FALSE(run->finished());
                           EXPECT_EQ(run->stop_reason(), Stop::kNot);
                           EXPECT_EQ(run->Progress().stats.accesses, 0u);
                           end = std::thread([&] { run->RunToEnd(); });
                           stop = std::thread(
                               [&] { run->StopNow(Stop::kCancelled); });
                           return absl::OkStatus();
                         })
                  .ok());
  EXPECT_TRUE(Ends());
  stop.join();
  end.join();
  EXPECT_TRUE(run->finished());
  EXPECT_EQ(run->stop_reason(), Stop::kCancelled);
}

// 1. stop: finds it unfinished, and is on its way to the vCPUs. 2. It ends by
// itself. 3. The next one must not begin before the stop is through, which
// would end that one.
TEST_F(WorkloadRunTest, ItIsNotOverBeforeWhoStopsItIsThrough) {
  const auto run = NewRun();
  ASSERT_TRUE(vm_.TrySetWorkload(run));
  std::promise<void> let_go;
  ASSERT_TRUE(
      run->Start(Of(std::make_unique<Lingering>(let_go.get_future().share())),
                 Confirm)
          .ok());
  ASSERT_TRUE(vm_.vm().WaitWorkload(kLong)) << "its vCPU is idle";
  // Waits for the vCPU's thread.
  std::thread stop([&] { run->StopNow(Stop::kRequested); });
  while (run->stop_reason() == Stop::kNot) std::this_thread::yield();
  std::atomic<bool> ending{false};
  std::thread end([&] {
    ending = true;
    run->RunToEnd();
  });
  while (!ending) std::this_thread::yield();
  const auto next = NewRun();
  bool is_over = false;
  for (int i = 0; i < 10000; ++i) {
    is_over |= run->finished();
    std::this_thread::yield();
  }
  EXPECT_FALSE(is_over);
  EXPECT_FALSE(vm_.TrySetWorkload(next));
  let_go.set_value();
  stop.join();
  end.join();
  EXPECT_TRUE(run->finished());
  EXPECT_TRUE(vm_.TrySetWorkload(next));
  // Too late for this one, and not meant for the next.
  run->StopNow(Stop::kCancelled);
  ASSERT_TRUE(next->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  run->StopNow(Stop::kCancelled);
  EXPECT_FALSE(vm_.vm().WaitWorkload(absl::ZeroDuration()));
  next->StopNow(Stop::kRequested);
  next->RunToEnd();
}

TEST_F(WorkloadRunTest, OneThatIsNotConfirmedIsOverAndHasDoneNothing) {
  const auto run = NewRun();
  ASSERT_TRUE(vm_.TrySetWorkload(run));
  EXPECT_EQ(run->Start(Of(std::make_unique<Writer>()),
                       [] { return absl::UnavailableError("draining"); }),
            absl::UnavailableError("draining"));
  EXPECT_TRUE(run->finished());
  run->AwaitFinished();
  EXPECT_EQ(vm_.vm().VcpuStats()[0].accesses, 0u);
  EXPECT_TRUE(vm_.TrySetWorkload(NewRun()));
}

}  // namespace
}  // namespace mmud
