#include "server/control/aging_thread.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/control/ager.h"
#include "server/control/vm_registry.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class AgingThreadTest : public ::testing::Test {
 protected:
  // A VM of one memslot whose ager is on.
  VmUse Make(const std::string& name) {
    mmu::VmConfig config;
    config.memslots = {mmu::testing::Slot(0, 0, kMiB)};
    VmUse vm = vms_.Create(name, config).value();
    EXPECT_TRUE(vm->ager()
                    .Update([](AgerSettings* settings) {
                      settings->enabled = true;
                      settings->min_interval = kShortestAgerInterval;
                      return absl::OkStatus();
                    })
                    .ok());
    return vm;
  }

  VmRegistry vms_{VmRegistry::Limits()};
  AgerTotals totals_;
  mmu::MonotonicTime now_ = mmu::MonotonicTime::Now();
};

TEST_F(AgingThreadTest, EachVmHasItsTurn) {
  const VmUse a = Make("vms/a");
  const VmUse b = Make("vms/b");
  EXPECT_GT(StepAgers(vms_, now_, totals_), now_);
  EXPECT_EQ(totals_.generations, 2u);
  EXPECT_EQ(a->ager().state().generations, 1u);
  EXPECT_EQ(b->ager().state().generations, 1u);
  EXPECT_EQ(totals_.cpu_time,
            a->ager().state().cpu_time + b->ager().state().cpu_time);
}

// What one VM lacks, the next one does not.
TEST_F(AgingThreadTest, AVmWithoutMemoryDoesNotKeepOthersFromTheirTurn) {
  const VmUse a = Make("vms/a");
  const VmUse b = Make("vms/b");
  uint64_t failures = 0;
  for (uint64_t n = 1;; ++n) {
    const AgerTotals before = totals_;
    const mmu::testing::Attempt attempt =
        mmu::testing::FailOneAllocation(n, [&] {
          // The list of VMs itself may find no memory: then nobody has a turn.
          try {
            StepAgers(vms_, now_, totals_);
          } catch (const std::bad_alloc&) {
          }
          return absl::OkStatus();
        });
    now_ = now_ + absl::Minutes(2);
    const uint64_t failed = totals_.failures - before.failures;
    EXPECT_LE(failed, 1u);
    if (failed == 1) {
      EXPECT_EQ(totals_.generations, before.generations + 1) << n;
    }
    failures += failed;
    if (!attempt.failed) break;
  }
  EXPECT_GE(failures, 10u);
}

TEST_F(AgingThreadTest, WorksUntilItEndsAndBesideDeletions) {
  AgingThread thread(vms_);
  for (int i = 0; i < 3; ++i) {
    const uint64_t before = thread.totals().generations;
    { const VmUse vm = Make("vms/a"); }
    thread.Wake();
    while (thread.totals().generations == before) std::this_thread::yield();
    const auto deleted = vms_.Delete(
        "vms/a", [](const ManagedVm&) { return mmu::UndeliveredCounts(); },
        [] { return absl::OkStatus(); });
    EXPECT_TRUE(deleted.ok()) << deleted.status();
  }
  EXPECT_EQ(thread.totals().failures, 0u);
}

}  // namespace
}  // namespace mmud
