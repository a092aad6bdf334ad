// Setting the wall clock changes only the times that the daemon and mmuctl
// show.

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/admin_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

using DirtyLogStub = v1::DirtyLogService::Stub;
using OperationsStub = google::longrunning::Operations::Stub;

// Longer than any test, shorter than any step of the clock.
constexpr int64_t kLongSeconds = 8 * 60;

// A wall clock that the test sets for the programs that it starts.
class SteppedClock {
 public:
  SteppedClock() {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(ftruncate(fd, sizeof(*offset_)), 0);
    offset_ = static_cast<std::atomic<int64_t>*>(mmap(
        nullptr, sizeof(*offset_), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
  }
  ~SteppedClock() { munmap(offset_, sizeof(*offset_)); }
  SteppedClock(const SteppedClock&) = delete;
  SteppedClock& operator=(const SteppedClock&) = delete;

  void Step(absl::Duration by) {
    offset_->fetch_add(absl::ToInt64Nanoseconds(by));
  }

  // Calls `start`; the programs that it starts use this clock.
  template <typename Start>
  auto ForWhatStarts(const Start& start) const {
    setenv("LD_PRELOAD", SteppedWallClockPath().c_str(), 1);
    setenv("STEPPED_WALL_CLOCK", path_.c_str(), 1);
    auto started = start();
    unsetenv("LD_PRELOAD");
    unsetenv("STEPPED_WALL_CLOCK");
    return started;
  }

 private:
  ScratchDirectory directory_;
  const std::string path_ = directory_.File("offset");
  std::atomic<int64_t>* offset_ = nullptr;
};

// A daemon that uses a SteppedClock.
class SteppedDaemon {
 public:
  SteppedDaemon()
      : daemon_(
            clock_.ForWhatStarts([] { return std::make_unique<Daemon>(); })) {}

  void Step(absl::Duration by) { clock_.Step(by); }
  Daemon* operator->() { return daemon_.get(); }
  Daemon& operator*() { return *daemon_; }

 private:
  SteppedClock clock_;
  const std::unique_ptr<Daemon> daemon_;
};

v1::DirtyLogState StateOfLog(const Guest& guest) {
  return guest.Get().memslots(0).dirty_log().state();
}

// A guest with `pages` pages of 2 MiB. A split takes one step for each.
Guest HugeGuest(const Daemon& daemon, int64_t pages) {
  Guest guest(daemon.client(), "huge",
              {MakeSlot(pages * 2 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                        v1::PAGE_SIZE_2M)});
  guest.ReadWords(pages * 2 * kMiB, 2 * kMiB);
  EXPECT_EQ(guest.Get().mapped_pages().pages_2m_count(), pages);
  return guest;
}

void AwaitBeginOfSplit(const Guest& guest, int64_t pages) {
  EXPECT_TRUE(Eventually(
      [&] { return guest.Get().mapped_pages().pages_2m_count() < pages; }));
}

// The parameter is the size of the clock's step in minutes.
class WallClockTest : public ::testing::TestWithParam<int> {
 protected:
  void Step() { daemon_.Step(absl::Minutes(GetParam())); }

  // Sets the clock during a throttled split. Returns the state after the split.
  v1::SplitMetadata SplitThroughAStep() {
    constexpr int64_t kPages = 8;
    const Guest guest = HugeGuest(*daemon_, kPages);
    v1::SplitHugePagesRequest request;
    request.mutable_throttle()->mutable_min_pause()->set_nanos(50'000'000);
    const std::string name = guest.StartSplit(request);
    AwaitBeginOfSplit(guest, kPages);
    Step();
    return Unpack<v1::SplitMetadata>(
        daemon_->client().WaitDone(name).metadata());
  }

  SteppedDaemon daemon_;
};

TEST_P(WallClockTest, WhatIsShownFollowsIt) {
  const Guest before(daemon_->client(), "before", {MakeSlot(kMiB)});
  Step();
  const Guest after(daemon_->client(), "after", {MakeSlot(kMiB)});
  const int64_t seconds = after.Get().create_time().seconds() -
                          before.Get().create_time().seconds();
  EXPECT_EQ(seconds > kLongSeconds, GetParam() > 0);
  EXPECT_EQ(seconds < -kLongSeconds, GetParam() < 0);
}

TEST_P(WallClockTest, WhatSomethingTookIsNoDifferenceOfIt) {
  const v1::SplitMetadata metadata = SplitThroughAStep();
  EXPECT_GE(metadata.running_time().seconds(), 0);
  EXPECT_LT(metadata.running_time().seconds(), kLongSeconds);
  const int64_t shown =
      metadata.end_time().seconds() - metadata.start_time().seconds();
  EXPECT_LE(shown - metadata.running_time().seconds(), 1);
  EXPECT_GE(shown - metadata.running_time().seconds(), 0);
  const auto build = daemon_->client().Must(
      &v1::AdminService::Stub::GetBuildInfo, v1::GetBuildInfoRequest());
  EXPECT_GE(build.uptime().seconds(), 0);
  EXPECT_LT(build.uptime().seconds(), kLongSeconds);
}

TEST_P(WallClockTest, ALogLivesAsLongAsItsTtl) {
  // The daemon checks the VMs in the order of their names.
  const Guest longer(daemon_->client(), "a-longer", {MakeSlot(kMiB)});
  const Guest shorter(daemon_->client(), "b-shorter", {MakeSlot(kMiB)});
  v1::StartDirtyLogRequest request;
  request.mutable_ttl()->set_seconds(kLongSeconds);
  longer.StartDirtyLog(request);
  request.mutable_ttl()->set_seconds(1);
  shorter.StartDirtyLog(request);
  Step();
  EXPECT_TRUE(Eventually(
      [&] { return StateOfLog(shorter) == v1::DIRTY_LOG_STATE_OFF; }));
  EXPECT_EQ(StateOfLog(longer), v1::DIRTY_LOG_STATE_ACTIVE);
}

TEST_P(WallClockTest, AThrottledSplitKeepsItsPace) {
  const v1::SplitMetadata metadata = SplitThroughAStep();
  EXPECT_EQ(metadata.state(), v1::SPLIT_STATE_DONE);
  EXPECT_GE(metadata.throttled().pause().seconds(), 0);
  EXPECT_LT(metadata.throttled().pause().seconds(), kLongSeconds);
}

TEST_P(WallClockTest, AWorkloadRunsAsLongAsItMay) {
  const Guest longer(daemon_->client(), "longer", {MakeSlot(kMiB)});
  const Guest shorter(daemon_->client(), "shorter", {MakeSlot(kMiB)});
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_uniform();
  workload.mutable_max_duration()->set_seconds(kLongSeconds);
  longer.Start(workload);
  workload.mutable_max_duration()->set_seconds(0);
  workload.mutable_max_duration()->set_nanos(200'000'000);
  const std::string ending = shorter.Start(workload);
  Step();
  const lab::v1::Workload end = shorter.AwaitEnd(ending);
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_COMPLETED);
  EXPECT_GE(end.running_time().seconds(), 0);
  EXPECT_LT(end.running_time().seconds(), kLongSeconds);
  const int64_t shown = end.end_time().seconds() - end.start_time().seconds();
  EXPECT_LE(shown - end.running_time().seconds(), 1);
  EXPECT_GE(shown - end.running_time().seconds(), 0);
  const auto accesses = [&] {
    return longer.LastWorkload().statistics().access_count();
  };
  // The workload has checked the time since, and continues.
  const int64_t then = accesses();
  EXPECT_TRUE(Eventually([&] { return accesses() > then + 1'000; }));
  EXPECT_EQ(longer.StopWorkload().state(), lab::v1::WORKLOAD_STATE_STOPPED);
}

TEST_P(WallClockTest, ADirtyRateIsOverTheTimeThatHasPassed) {
  const Guest guest(daemon_->client(), "a", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  Step();
  v1::GetDirtyRateRequest request;
  request.set_vm(guest.name());
  request.add_windows()->set_nanos(100'000'000);
  v1::DirtyRate rate;
  EXPECT_TRUE(Eventually([&] {
    const auto result =
        daemon_->client().Call(&DirtyLogStub::GetDirtyRate, request);
    if (result.status.ok()) rate = result.response.rates(0);
    return result.status.ok();
  }));
  EXPECT_LT(rate.observed().seconds(), kLongSeconds);
}

TEST_P(WallClockTest, AWaitEndsAfterItsTimeout) {
  const Guest guest(
      daemon_->client(), "a",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  google::longrunning::WaitOperationRequest request;
  request.set_name(guest.StartLongOperation());
  request.mutable_timeout()->set_nanos(500'000'000);
  std::thread caller([&] {
    EXPECT_FALSE(
        daemon_->client().Must(&OperationsStub::WaitOperation, request).done());
  });
  EXPECT_TRUE(Eventually([&] {
    const auto metrics = ParseMetrics(daemon_->MetricsText());
    return metrics.ok() && metrics->Sum("grpc_server_started_total",
                                        {"grpc_method=\"WaitOperation\""}) > 0;
  }));
  Step();
  caller.join();
  daemon_->client().Cancel(request.name());
}

TEST_P(WallClockTest, AStartOfALogIsPacedAsItsThrottleSays) {
  constexpr int64_t kPages = 8;
  const Guest guest = HugeGuest(*daemon_, kPages);
  v1::StartDirtyLogRequest request;
  request.mutable_throttle()->mutable_min_pause()->set_nanos(50'000'000);
  std::thread caller([&] { guest.StartDirtyLog(request); });
  AwaitBeginOfSplit(guest, kPages);
  Step();
  caller.join();
  EXPECT_EQ(StateOfLog(guest), v1::DIRTY_LOG_STATE_ACTIVE);
}

// Setting the clock does not let another owner take the log during the lease.
TEST_P(WallClockTest, ALeaseLastsAsLongAsItSays) {
  const Guest guest(daemon_->client(), "a", {MakeSlot(kMiB)});
  v1::StartDirtyLogRequest start;
  start.mutable_lease()->set_seconds(kLongSeconds);
  guest.StartDirtyLog(start);
  Step();
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest.name());
  acquire.set_owner("another");
  acquire.set_owner_token("a token of another owner");
  EXPECT_EQ(ReasonOf(daemon_->client()
                         .Call(&DirtyLogStub::AcquireDirtyLog, acquire)
                         .status),
            "LOG_OWNED");
  acquire.set_force(true);
  acquire.mutable_lease()->set_seconds(1);
  daemon_->client().Must(&DirtyLogStub::AcquireDirtyLog, acquire);
  Step();
  acquire.set_force(false);
  acquire.set_owner_token("a token of a third owner");
  EXPECT_TRUE(Eventually([&] {
    return daemon_->client()
        .Call(&DirtyLogStub::AcquireDirtyLog, acquire)
        .status.ok();
  }));
}

TEST_P(WallClockTest, ARepeatedRequestIsKnown) {
  v1::CreateVmRequest request;
  request.set_vm_id("a");
  request.set_request_id("7f1b0d4e-3c52-4b6e-9f0a-0123456789ab");
  request.mutable_vm()->mutable_tdp();
  *request.mutable_vm()->add_memslots() = MakeSlot(kMiB);
  daemon_->client().Must(&v1::VmService::Stub::CreateVm, request);
  Step();
  daemon_->client().Must(&v1::VmService::Stub::CreateVm, request);
}

TEST_P(WallClockTest, ADrainComesToItsEnd) {
  const Guest guest(daemon_->client(), "a", {MakeSlot(kMiB)});
  guest.StartRandomWrites(1);
  daemon_->process().Signal(SIGTERM);
  EXPECT_TRUE(Eventually([&] {
    return !daemon_->process().running() ||
           HttpGet(daemon_->metrics_port(), "/readyz").code != 200;
  }));
  Step();
  EXPECT_EQ(daemon_->process().Wait(absl::Minutes(1)), 0);
}

INSTANTIATE_TEST_SUITE_P(Steps, WallClockTest,
                         ::testing::Values(-120, -60, -10, 10, 60, 120),
                         [](const ::testing::TestParamInfo<int>& step) {
                           return absl::StrCat(
                               step.param < 0 ? "Back" : "Forward",
                               std::abs(step.param), "Minutes");
                         });

// Tests that set the clock of the client, not that of the daemon.
class ClientWallClockTest : public ::testing::TestWithParam<int> {
 protected:
  std::unique_ptr<ChildProcess> Mmuctl(const std::string& name,
                                       std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {MmuctlPath(), "--address", daemon_.address()});
    return clock_.ForWhatStarts([&] {
      return std::make_unique<ChildProcess>(arguments,
                                            daemon_.directory().File(name));
    });
  }

  Daemon daemon_;
  SteppedClock clock_;
};

TEST_P(ClientWallClockTest, AWaitEndsAfterItsTimeoutAndNotBefore) {
  const Guest guest(
      daemon_.client(), "a",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  const std::string name = guest.StartLongOperation();
  const auto longer = Mmuctl(
      "longer",
      {absl::StrCat("--timeout=", kLongSeconds, "s"), "op", "wait", name});
  const auto shorter = Mmuctl("shorter", {"--timeout=3s", "op", "wait", name});
  // Both clients have shown the first state.
  const auto lines = [](const ChildProcess& client) {
    const std::string text = client.Err();
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_TRUE(
      Eventually([&] { return lines(*longer) > 0 && lines(*shorter) > 0; }));
  clock_.Step(absl::Minutes(GetParam()));
  EXPECT_EQ(shorter->Wait(absl::Minutes(1)), 7) << shorter->Err();
  // The longer wait has read the clock since, to show the next states.
  const auto then = lines(*longer);
  EXPECT_TRUE(Eventually(
      [&] { return lines(*longer) > then + 1 || !longer->running(); }));
  daemon_.client().Cancel(name);
  EXPECT_EQ(longer->Wait(absl::Minutes(1)), 8) << longer->Err();
}

TEST_P(ClientWallClockTest, AWatchedWorkloadIsWaitedForAsLongAsItIsSaid) {
  const Guest guest(daemon_.client(), "a", {MakeSlot(kMiB)});
  guest.StartRandomWrites(1);
  const auto longer =
      Mmuctl("longer", {absl::StrCat("--timeout=", kLongSeconds, "s"),
                        "workload", "status", "a", "--watch"});
  const auto shorter =
      Mmuctl("shorter", {"--timeout=3s", "workload", "status", "a", "--watch"});
  const auto shows = [](const ChildProcess& client) {
    return !client.Err().empty();
  };
  EXPECT_TRUE(Eventually([&] { return shows(*longer) && shows(*shorter); }));
  clock_.Step(absl::Minutes(GetParam()));
  EXPECT_EQ(shorter->Wait(absl::Minutes(1)), 7) << shorter->Err();
  EXPECT_TRUE(longer->running()) << longer->Err();
  guest.StopWorkload();
  EXPECT_EQ(longer->Wait(absl::Minutes(1)), 0) << longer->Err();
}

INSTANTIATE_TEST_SUITE_P(Steps, ClientWallClockTest, ::testing::Values(-60, 60),
                         [](const ::testing::TestParamInfo<int>& step) {
                           return std::string(step.param < 0 ? "Back"
                                                             : "Forward");
                         });

}  // namespace
}  // namespace mmud::integration
