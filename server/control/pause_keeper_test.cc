#include "server/control/pause_keeper.h"

#include <atomic>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/control/managed_vm.h"
#include "server/control/vcpu_pause.h"
#include "server/control/vm_registry.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

class PauseKeeperTest : public ::testing::Test {
 protected:
  VmUse Make(const std::string& name) {
    return *vms_.Create(name, mmu::VmConfig());
  }
  void Pause(const VmUse& vm, absl::Duration duration) {
    keeper_.Watch(vm->pause().Extend(duration).expires);
  }
  static void AwaitEnd(const VmUse& vm) {
    while (vm->pause().Get().has_value()) std::this_thread::yield();
    EXPECT_FALSE(vm->vm().vcpus_paused());
  }

  VmRegistry vms_{VmRegistry::Limits()};
  std::atomic<int> lines_ = 0;
  // The rate is so low that only the first line of each VM is admitted.
  LimitedLog log_{
      [this](LogLevel, absl::string_view message, const LogFields&) {
        if (absl::StartsWith(message, "pause ")) ++lines_;
      },
      {.lines_per_second = 1e-9, .burst = 1}};
  PauseKeeper keeper_{vms_, log_};
};

TEST_F(PauseKeeperTest, EndsEachPauseAtItsTime) {
  const VmUse a = Make("vms/a");
  const VmUse b = Make("vms/b");
  const VmUse c = Make("vms/c");
  Pause(c, absl::Hours(1));
  Pause(a, absl::Milliseconds(20));
  // Ends sooner than the pause that the thread waits for.
  Pause(b, absl::Milliseconds(1));
  const mmu::MonotonicTime expires = a->pause().Get()->expires;
  AwaitEnd(b);
  AwaitEnd(a);
  EXPECT_GE(mmu::MonotonicTime::Now(), expires);
  EXPECT_TRUE(c->vm().vcpus_paused());
}

// A client that lets pauses run out again and again does not fill the log.
TEST_F(PauseKeeperTest, ItsLinesAreLimitedForEachVm) {
  const VmUse a = Make("vms/a");
  const VmUse b = Make("vms/b");
  for (int i = 0; i < 3; ++i) {
    Pause(a, absl::Milliseconds(1));
    AwaitEnd(a);
  }
  Pause(b, absl::Milliseconds(1));
  AwaitEnd(b);
  while (lines_ < 2 || log_.dropped() < 2) std::this_thread::yield();
  EXPECT_EQ(lines_, 2);
  EXPECT_EQ(log_.dropped(), 2u);
}

TEST_F(PauseKeeperTest, WhatWasExtendedEndsAtItsNewTime) {
  const VmUse vm = Make("vms/a");
  Pause(vm, absl::Milliseconds(10));
  Pause(vm, absl::Milliseconds(60));
  const mmu::MonotonicTime expires = vm->pause().Get()->expires;
  AwaitEnd(vm);
  EXPECT_GE(mmu::MonotonicTime::Now(), expires);
}

TEST_F(PauseKeeperTest, AVmThatIsGoneHasNoPause) {
  {
    const VmUse vm = Make("vms/a");
    Pause(vm, absl::Milliseconds(5));
  }
  ASSERT_TRUE(vms_.Delete(
                      "vms/a",
                      [](const ManagedVm&) { return mmu::UndeliveredCounts(); },
                      [] { return absl::OkStatus(); })
                  .ok());
  const VmUse again = Make("vms/a");
  Pause(again, absl::Milliseconds(20));
  AwaitEnd(again);
}

}  // namespace
}  // namespace mmud
