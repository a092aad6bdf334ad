// A workload that is started, stopped and finished at the same time.

#include "server/control/workload_run.h"

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
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr absl::Duration kLong = absl::Seconds(10);
constexpr uint64_t kMiB = uint64_t{1} << 20;

using State = WorkloadRun::State;

absl::Status Confirm() { return absl::OkStatus(); }
void LetGo(const WorkloadRun::Progress&) {}

// Writes to one page for ever.
class Writer : public mmu::AccessSource {
 public:
  bool Next(mmu::GuestAccess* access) override {
    *access = {0, 8, mmu::AccessKind::kWrite};
    return true;
  }
  absl::Status status() const override { return absl::OkStatus(); }
};

// Ends at once with an error.
class Failing : public mmu::AccessSource {
 public:
  explicit Failing(absl::Status status) : status_(std::move(status)) {}
  bool Next(mmu::GuestAccess*) override { return false; }
  absl::Status status() const override { return status_; }

 private:
  const absl::Status status_;
};

// Ends at once, but its vCPU's thread does not end before `end` is set.
class Lingering : public mmu::AccessSource {
 public:
  explicit Lingering(std::shared_future<void> end) : end_(std::move(end)) {}
  bool Next(mmu::GuestAccess*) override {
    // Its destructor is the last action of the thread, when the vCPU is already
    // idle.
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
    return std::make_shared<WorkloadRun>(vm_.vm(), WorkloadDescription());
  }
  // Makes the run the VM's workload, as the code that starts workloads does.
  bool Set(const std::shared_ptr<WorkloadRun>& run) {
    if (!vm_.TryBeginWorkload()) return false;
    vm_.SetWorkload(run);
    return true;
  }
  // Returns whether the guest ends by itself. If it does not, stops it.
  bool Ends() {
    const bool ends = vm_.vm().WaitWorkload(kLong);
    vm_.vm().StopWorkload();
    return ends;
  }

  ManagedVm vm_{"vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
                WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn};
};

// 1. The start makes the run the VM's workload. 2. The stop finds the workload,
// but no running vCPU. 3. The start begins to run the vCPUs.
TEST_F(WorkloadRunTest, AStopThatComesBeforeTheVcpusEndsThem) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  run->StopNow();
  EXPECT_FALSE(run->finished());
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  EXPECT_TRUE(Ends());
  run->RunToEnd(LetGo);
  run->AwaitFinished();
  EXPECT_EQ(run->progress().state, State::kStopped);
}

// `confirm` makes the workload visible, so that it may be stopped.
TEST_F(WorkloadRunTest, WhileItIsStartedItIsShownAndMayBeStopped) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  std::thread end;
  std::thread stop;
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()),
                         [&] {
                           EXPECT_FALSE(run->finished());
                           EXPECT_EQ(run->progress().state, State::kRunning);
                           EXPECT_EQ(run->progress().stats.accesses, 0u);
                           end = std::thread([&] { run->RunToEnd(LetGo); });
                           stop = std::thread([&] { run->StopNow(); });
                           return absl::OkStatus();
                         })
                  .ok());
  EXPECT_TRUE(Ends());
  stop.join();
  end.join();
  EXPECT_TRUE(run->finished());
  EXPECT_EQ(run->progress().state, State::kStopped);
}

// 1. The stop finds the workload unfinished and is about to stop the vCPUs. 2.
// The workload ends by itself. 3. The next workload must not begin before the
// stop is done, since the stop would end it.
TEST_F(WorkloadRunTest, ItIsNotOverBeforeWhoStopsItIsThrough) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  std::promise<void> let_go;
  ASSERT_TRUE(
      run->Start(Of(std::make_unique<Lingering>(let_go.get_future().share())),
                 Confirm)
          .ok());
  ASSERT_TRUE(vm_.vm().WaitWorkload(kLong)) << "its vCPU is idle";
  // Waits for the vCPU's thread.
  std::thread stop([&] { run->StopNow(); });
  while (!run->stop_requested()) std::this_thread::yield();
  std::atomic<bool> ending{false};
  std::thread end([&] {
    ending = true;
    run->RunToEnd(LetGo);
  });
  while (!ending) std::this_thread::yield();
  const auto next = NewRun();
  bool is_over = false;
  for (int i = 0; i < 10000; ++i) {
    is_over |= run->finished();
    std::this_thread::yield();
  }
  EXPECT_FALSE(is_over);
  EXPECT_FALSE(Set(next));
  EXPECT_EQ(run->progress().state, State::kRunning);
  let_go.set_value();
  stop.join();
  end.join();
  EXPECT_TRUE(run->finished());
  EXPECT_EQ(run->progress().state, State::kCompleted);
  EXPECT_TRUE(Set(next));
  // Too late for this workload, and without effect on the next one.
  run->StopNow();
  ASSERT_TRUE(next->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  run->StopNow();
  EXPECT_FALSE(vm_.vm().WaitWorkload(absl::ZeroDuration()));
  next->StopNow();
  next->RunToEnd(LetGo);
}

// A thread that sees the workload finished finds its use of the VM released.
TEST_F(WorkloadRunTest, ItLetsGoBeforeItIsOver) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  run->StopNow();
  int calls = 0;
  run->RunToEnd([&](const WorkloadRun::Progress& end) {
    ++calls;
    EXPECT_FALSE(run->finished());
    EXPECT_EQ(run->progress().state, State::kRunning);
    EXPECT_FALSE(run->progress().end_time.has_value());
    EXPECT_EQ(end.state, State::kStopped);
    EXPECT_TRUE(end.end_time.has_value());
  });
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(run->finished());
}

TEST_F(WorkloadRunTest, ItEndsAsMuchLaterAsItRan) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  ASSERT_TRUE(run->Start(Of(std::make_unique<Writer>()), Confirm).ok());
  while (run->progress().stats.accesses == 0) std::this_thread::yield();
  run->StopNow();
  run->RunToEnd(LetGo);
  const WorkloadRun::Progress end = run->progress();
  EXPECT_GT(end.stats.accesses, 0u);
  EXPECT_GT(end.running_time, absl::ZeroDuration());
  ASSERT_TRUE(end.end_time.has_value());
  EXPECT_EQ(end.end_time->unix_nanos(),
            run->start_time().Later(end.running_time).unix_nanos());
}

TEST_F(WorkloadRunTest, AFailureHasAReason) {
  const auto reason_of = [this](absl::Status failure) {
    const auto run = NewRun();
    EXPECT_TRUE(Set(run));
    EXPECT_TRUE(
        run->Start(Of(std::make_unique<Failing>(std::move(failure))), Confirm)
            .ok());
    run->RunToEnd(LetGo);
    const WorkloadRun::Progress end = run->progress();
    EXPECT_EQ(end.state, State::kFailed);
    return mmu::DetailOf(end.error).reason;
  };
  EXPECT_EQ(reason_of(absl::DataLossError("cut off")),
            mmu::Reason::kTraceCorrupt);
  EXPECT_EQ(reason_of(absl::ResourceExhaustedError("too few pages")),
            mmu::Reason::kTraceTooLarge);
  EXPECT_EQ(reason_of(absl::FailedPreconditionError("too few pages")),
            mmu::Reason::kTraceTooLarge);
  EXPECT_EQ(reason_of(mmu::MakeError(absl::StatusCode::kResourceExhausted,
                                     {mmu::Reason::kMmuPagesExhausted, "", 0},
                                     "no page table is left")),
            mmu::Reason::kMmuPagesExhausted);
}

TEST_F(WorkloadRunTest, OneThatIsNotConfirmedIsOverAndHasDoneNothing) {
  const auto run = NewRun();
  ASSERT_TRUE(Set(run));
  EXPECT_EQ(run->Start(Of(std::make_unique<Writer>()),
                       [] { return absl::UnavailableError("draining"); }),
            absl::UnavailableError("draining"));
  EXPECT_TRUE(run->finished());
  run->AwaitFinished();
  EXPECT_EQ(vm_.vm().VcpuStats()[0].accesses, 0u);
  EXPECT_TRUE(vm_.TryBeginWorkload());
}

}  // namespace
}  // namespace mmud
