#include "server/control/shown_vm.h"

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/control/workload_run.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Slot 1 lies above slot 4.
class ShownVmTest : public ::testing::Test {
 protected:
  ShownVmTest()
      : vm_("vms/a",
            mmu::testing::MakeVm({mmu::testing::Slot(1, 4 * kMiB, kMiB),
                                  mmu::testing::Slot(4, 0, kMiB)}),
            WallTime::FromUnixNanos(7), ManagedVm::MetricsLabel::kOwn,
            {{"owner", "tests"}}) {}

  ManagedVm vm_;
};

TEST_F(ShownVmTest, SettingsAreOfTheMomentAndSlotsAscendByAddress) {
  const VmSettings before = SettingsOf(vm_);
  EXPECT_EQ(before.facts.name, "vms/a");
  EXPECT_EQ(before.facts.uid, vm_.uid());
  EXPECT_EQ(&before.facts.config, &vm_.vm().config());
  ASSERT_EQ(before.slots.size(), 2u);
  EXPECT_EQ(before.slots[0].config.slot, 4u);
  EXPECT_EQ(before.slots[1].config.slot, 1u);
  {
    absl::MutexLock lock(&vm_.slots_mu());
    vm_.set_labels({});
  }
  EXPECT_EQ(before.labels.at("owner"), "tests");
  EXPECT_TRUE(SettingsOf(vm_).labels.empty());
}

TEST_F(ShownVmTest, LogsOfSlotsAreReadOnlyOnRequest) {
  EXPECT_TRUE(ShowVm(vm_, SlotLogs::kRead).slot_logs.empty());
  ASSERT_TRUE(mmu::testing::StartLog(vm_.vm()).ok());
  const ShownVm with_logs = ShowVm(vm_, SlotLogs::kRead);
  ASSERT_EQ(with_logs.slot_logs.size(), 2u);
  EXPECT_EQ(with_logs.slot_logs.at(4).state.slot, 4u);
  const ShownVm without = ShowVm(vm_, SlotLogs::kLeaveOut);
  EXPECT_TRUE(without.slot_logs.empty());
  EXPECT_TRUE(without.log.has_value());
  EXPECT_EQ(without.create_time.unix_nanos(), 7);
}

TEST_F(ShownVmTest, AVmWithoutAWorkloadIsIdleAndNoneHasEnded) {
  const ShownVm shown = ShowVm(vm_, SlotLogs::kLeaveOut);
  EXPECT_FALSE(shown.vcpus.run_workload);
  EXPECT_FALSE(shown.vcpus.wait_for_ring);
  EXPECT_FALSE(shown.ended_workload.has_value());
  EXPECT_FALSE(shown.deleting);
}

TEST_F(ShownVmTest, AWorkloadWhoseStartWasRefusedHasNoEnd) {
  const auto run =
      std::make_shared<WorkloadRun>(vm_.vm(), WorkloadDescription());
  ASSERT_TRUE(vm_.TryBeginWorkload());
  vm_.SetWorkload(run);
  // No vCPU has a program.
  ASSERT_FALSE(
      run->Start(mmu::WorkloadOptions(), [] { return absl::OkStatus(); }).ok());
  ASSERT_TRUE(run->finished());
  const ShownVm shown = ShowVm(vm_, SlotLogs::kLeaveOut);
  EXPECT_FALSE(shown.vcpus.run_workload);
  EXPECT_FALSE(shown.ended_workload.has_value());
}

}  // namespace
}  // namespace mmud
