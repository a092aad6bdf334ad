#include "server/control/vcpu_pause.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"

namespace mmud {
namespace {

class VcpuPauseTest : public ::testing::Test {
 protected:
  const std::unique_ptr<mmu::Vm> vm_ = *mmu::Vm::Create(mmu::VmConfig());
  VcpuPause pause_{*vm_};
};

TEST_F(VcpuPauseTest, LastsUntilItsTimeAndNoLonger) {
  EXPECT_FALSE(pause_.Get().has_value());
  EXPECT_FALSE(
      pause_.EndIfExpired(mmu::MonotonicTime::InfiniteFuture()).has_value());
  const VcpuPause::State state = pause_.Extend(absl::Hours(1));
  EXPECT_TRUE(vm_->vcpus_paused());
  EXPECT_EQ(state.expires - state.since, absl::Hours(1));
  EXPECT_FALSE(
      pause_.EndIfExpired(state.expires - absl::Nanoseconds(1)).has_value());
  EXPECT_TRUE(vm_->vcpus_paused());

  const absl::optional<VcpuPause::State> ended =
      pause_.EndIfExpired(state.expires);
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->since, state.since);
  EXPECT_FALSE(vm_->vcpus_paused());
  EXPECT_FALSE(pause_.Get().has_value());
  EXPECT_FALSE(pause_.EndIfExpired(state.expires).has_value());
}

TEST_F(VcpuPauseTest, PausingAgainExtendsAndNeverShortens) {
  const VcpuPause::State first = pause_.Extend(absl::Hours(1));
  const VcpuPause::State shorter = pause_.Extend(absl::Seconds(1));
  EXPECT_EQ(shorter.since, first.since);
  EXPECT_EQ(shorter.expires, first.expires);
  const VcpuPause::State longer = pause_.Extend(absl::Hours(2));
  EXPECT_EQ(longer.since, first.since);
  EXPECT_GT(longer.expires, first.expires);
  EXPECT_FALSE(pause_.EndIfExpired(first.expires).has_value());
  EXPECT_TRUE(vm_->vcpus_paused());
}

TEST_F(VcpuPauseTest, ResumingEndsIt) {
  pause_.End();
  const VcpuPause::State state = pause_.Extend(absl::Seconds(1));
  pause_.End();
  EXPECT_FALSE(vm_->vcpus_paused());
  EXPECT_FALSE(pause_.Get().has_value());
  // The time of a pause that was ended does not affect the next pause.
  pause_.Extend(absl::Hours(1));
  EXPECT_FALSE(pause_.EndIfExpired(state.expires).has_value());
  EXPECT_TRUE(vm_->vcpus_paused());
}

// After an Extend the VM is paused, even if another thread ends an expired
// pause meanwhile.
TEST_F(VcpuPauseTest, WhatIsExtendedDoesNotEndMeanwhile) {
  std::atomic<bool> stop{false};
  std::thread expirer([&] {
    while (!stop) pause_.EndIfExpired(mmu::MonotonicTime::Now());
  });
  for (int i = 0; i < 2000; ++i) {
    // The pause expires at once: the other thread ends it, or this thread
    // extends it.
    pause_.Extend(absl::ZeroDuration());
    const VcpuPause::State state = pause_.Extend(absl::Hours(1));
    EXPECT_TRUE(vm_->vcpus_paused());
    EXPECT_TRUE(pause_.Get().has_value());
    EXPECT_GT(state.expires, mmu::MonotonicTime::Now());
    pause_.End();
    EXPECT_FALSE(vm_->vcpus_paused());
  }
  stop = true;
  expirer.join();
}

}  // namespace
}  // namespace mmud
