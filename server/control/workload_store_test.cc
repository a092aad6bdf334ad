#include "server/control/workload_store.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/resource_names.h"
#include "server/control/drain_state.h"
#include "server/control/managed_vm.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

using RunPtr = std::shared_ptr<WorkloadRun>;

// Writes to one page a number of times, then ends with `status`.
class Writer : public mmu::AccessSource {
 public:
  explicit Writer(int64_t count, absl::Status status = absl::OkStatus())
      : left_(count), status_(std::move(status)) {}
  bool Next(mmu::GuestAccess* access) override {
    if (left_-- == 0) return false;
    *access = {0, 8, mmu::AccessKind::kWrite};
    return true;
  }
  absl::Status status() const override { return status_; }

 private:
  int64_t left_;
  const absl::Status status_;
};

constexpr int64_t kEndless = INT64_MAX;

mmu::Reason Reason(const absl::Status& status) {
  return mmu::DetailOf(status).reason;
}

class WorkloadStoreTest : public ::testing::Test {
 protected:
  VmUse Make(const std::string& name) {
    mmu::VmConfig config;
    config.memslots.push_back(mmu::testing::Slot(0, 0, kMiB));
    return vms_.Create(name, config).value();
  }

  absl::StatusOr<RunPtr> Start(const VmUse& vm, int64_t count,
                               const absl::Status& status = absl::OkStatus()) {
    WorkloadDescription description;
    description.name = NewWorkloadName(vm->name());
    mmu::WorkloadOptions options;
    options.sources.push_back(std::make_unique<Writer>(count, status));
    return store_.Start(vm, std::move(description), std::move(options));
  }

  // Deletes at once, or returns the error.
  absl::Status Delete(const std::string& name) {
    return vms_
        .Delete(
            name,
            [](const ManagedVm&) -> absl::StatusOr<mmu::UndeliveredCounts> {
              return mmu::UndeliveredCounts();
            },
            [] { return absl::OkStatus(); })
        .status();
  }

  DrainState drain_;
  std::vector<std::string> lines_;  // under the log's lock
  LimitedLog log_{[this](LogLevel level, absl::string_view message,
                         const LogFields& fields) {
                    if (message != "workload ended") return;
                    std::string line = LogLevelName(level);
                    for (const auto& [key, value] : fields) {
                      if (key == "workload" || key == "duration") continue;
                      absl::StrAppend(&line, " ", key, "=", value);
                    }
                    lines_.push_back(line);
                  },
                  {.lines_per_second = 0.001, .burst = 3}};
  VmRegistry vms_{{.max_vms = 100}};
  WorkloadStore store_{vms_, drain_, log_};
};

TEST_F(WorkloadStoreTest, AWorkloadIsItsVmsUntilTheNextOne) {
  const VmUse vm = Make("vms/a");
  EXPECT_EQ(vm->workload(), nullptr);
  const RunPtr first = Start(vm, kEndless).value();
  EXPECT_EQ(vm->workload(), first);
  EXPECT_EQ(Reason(Start(vm, 1).status()), mmu::Reason::kWorkloadRunning);
  EXPECT_EQ(vm->workload(), first);
  EXPECT_EQ(store_.Metrics().running, 1);
  first->StopNow();
  first->AwaitFinished();
  EXPECT_EQ(vm->workload(), first);
  const RunPtr second = Start(vm, 1).value();
  EXPECT_EQ(vm->workload(), second);
  second->AwaitFinished();
}

TEST_F(WorkloadStoreTest, WhatIsRefusedLeavesTheLastOne) {
  const VmUse vm = Make("vms/a");
  const RunPtr last = Start(vm, 10).value();
  last->AwaitFinished();
  for (const int threads : {0, 1}) {  // none for its vCPU, or none for its end
    mmu::LimitThreads(threads);
    const absl::Status none = Start(vm, kEndless).status();
    mmu::LimitThreads(-1);
    EXPECT_EQ(Reason(none), mmu::Reason::kThreadsExhausted);
    EXPECT_EQ(vm->workload(), last);
    EXPECT_EQ(last->progress().stats.accesses, 10u);
  }
  drain_.Begin();
  EXPECT_EQ(Reason(Start(vm, kEndless).status()), mmu::Reason::kDraining);
  EXPECT_EQ(vm->workload(), last);
  EXPECT_EQ(store_.Metrics().running, 0);
  EXPECT_EQ(store_.Metrics().completed, 1u);
  EXPECT_EQ(vm->vm().VcpuStats()[0].accesses, 10u);
}

// The deletion is refused only while the guest runs: as soon as the workload
// has finished, the VM can be deleted.
TEST_F(WorkloadStoreTest, AVmWhoseGuestRunsIsNotDeleted) {
  RunPtr run;
  {
    const VmUse vm = Make("vms/a");
    run = Start(vm, kEndless).value();
  }
  const absl::Status refused = Delete("vms/a");
  EXPECT_EQ(Reason(refused), mmu::Reason::kOperationRunning);
  EXPECT_TRUE(absl::StrContains(refused.message(), "runs a workload"))
      << refused;
  EXPECT_FALSE(absl::StrContains(refused.message(), "operations")) << refused;
  VmUse operation = vms_.ForOperation(vms_.Find("vms/a").value()).value();
  const absl::Status both = Delete("vms/a");
  EXPECT_TRUE(absl::StrContains(both.message(), "runs a workload")) << both;
  EXPECT_TRUE(absl::StrContains(both.message(), "1 operations")) << both;
  operation.Release();
  std::thread stop([&] { run->StopNow(); });
  while (!run->finished()) std::this_thread::yield();
  int checks = 0;
  EXPECT_TRUE(
      vms_.Delete(
              "vms/a",
              [&](const ManagedVm&) -> absl::StatusOr<mmu::UndeliveredCounts> {
                ++checks;
                return mmu::UndeliveredCounts();
              },
              [] { return absl::OkStatus(); })
          .ok());
  EXPECT_EQ(checks, 1) << "the guest was let go of late";
  stop.join();
  EXPECT_EQ(run->progress().state, WorkloadRun::State::kStopped);
}

TEST_F(WorkloadStoreTest, EndsAreCountedByStateAndLogged) {
  const VmUse vm = Make("vms/a");
  Start(vm, 1).value()->AwaitFinished();
  EXPECT_EQ(store_.Metrics().completed, 1u);
  const RunPtr run = Start(vm, kEndless).value();
  run->StopNow();
  run->AwaitFinished();
  EXPECT_EQ(store_.Metrics().stopped, 1u);
  Start(vm, 1, absl::DataLossError("cut off")).value()->AwaitFinished();
  EXPECT_EQ(store_.Metrics().failed, 1u);
  EXPECT_EQ(store_.Metrics().running, 0);
  EXPECT_EQ(lines_,
            (std::vector<std::string>{
                "info vm=vms/a state=completed", "info vm=vms/a state=stopped",
                "warning vm=vms/a state=failed reason=TRACE_CORRUPT"}));
}

TEST_F(WorkloadStoreTest, AFloodOfWorkloadsDoesNotFloodTheLog) {
  const VmUse vm = Make("vms/a");
  for (int i = 0; i < 20; ++i) Start(vm, 1).value()->AwaitFinished();
  EXPECT_EQ(lines_.size(), 3u);
  EXPECT_EQ(log_.dropped(), 17u);
}

TEST_F(WorkloadStoreTest, ADrainEndsAllThatRun) {
  std::vector<RunPtr> runs;
  for (int i = 0; i < 5; ++i) {
    const VmUse vm = Make(absl::StrCat("vms/vm-", i));
    // The first VM's vCPUs are paused; its workload must end too.
    if (i == 0) vm->vm().PauseVcpus();
    runs.push_back(Start(vm, kEndless).value());
  }
  EXPECT_EQ(store_.Metrics().running, 5);
  drain_.Begin();
  store_.StopAll();
  for (const RunPtr& run : runs) {
    EXPECT_TRUE(run->finished());
    EXPECT_EQ(run->progress().state, WorkloadRun::State::kStopped);
  }
  EXPECT_EQ(store_.Metrics().running, 0);
  EXPECT_EQ(store_.Metrics().stopped, 5u);
}

// Workloads end by themselves, are stopped and are started again, and a VM is
// deleted as soon as its workload has ended.
TEST_F(WorkloadStoreTest, WhoeverSeesOneEndedMayGoOn) {
  for (int round = 0; round < 50; ++round) {
    VmUse vm = Make("vms/a");
    const RunPtr run = Start(vm, round % 2 == 0 ? 1 : kEndless).value();
    std::thread stop([&] { run->StopNow(); });
    run->AwaitFinished();
    const RunPtr next = Start(vm, 1).value();
    next->AwaitFinished();
    stop.join();
    vm.Release();
    ASSERT_TRUE(Delete("vms/a").ok()) << round;
  }
}

}  // namespace
}  // namespace mmud
