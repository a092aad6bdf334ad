#include "server/pause_keeper.h"

#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/managed_vm.h"
#include "server/vcpu_pause.h"
#include "server/vm_registry.h"

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
  PauseKeeper keeper_{vms_};
};

TEST_F(PauseKeeperTest, EndsEachPauseAtItsTime) {
  const VmUse a = Make("vms/a");
  const VmUse b = Make("vms/b");
  const VmUse c = Make("vms/c");
  Pause(c, absl::Hours(1));
  Pause(a, absl::Milliseconds(20));
  // Sooner than what the thread waits for.
  Pause(b, absl::Milliseconds(1));
  const mmu::MonotonicTime expires = a->pause().Get()->expires;
  AwaitEnd(b);
  AwaitEnd(a);
  EXPECT_GE(mmu::MonotonicTime::Now(), expires);
  EXPECT_TRUE(c->vm().vcpus_paused());
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
                      "vms/a", [](const ManagedVm&) { return 0; },
                      [] { return absl::OkStatus(); })
                  .ok());
  const VmUse again = Make("vms/a");
  Pause(again, absl::Milliseconds(20));
  AwaitEnd(again);
}

}  // namespace
}  // namespace mmud
