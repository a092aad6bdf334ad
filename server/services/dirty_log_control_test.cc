#include "server/services/dirty_log_control.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/managed_vm.h"
#include "server/rpc/timer.h"

namespace mmud {
namespace {

using mmu::testing::Attempt;
using mmu::testing::FailOneAllocation;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Logs with a ttl of a second, and has two dirty pages.
class LoggingVm {
 public:
  LoggingVm()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {
    v1::StartDirtyLogRequest request;
    request.mutable_ttl()->set_seconds(1);
    Timer timer;
    const PacedCall call = {.timer = timer,
                            .keep_going = [] { return absl::OkStatus(); },
                            .part_done = [] {}};
    EXPECT_TRUE(StartDirtyLog(request, vm_, call).ok());
    mmu::testing::Write(vm_.vm(), 0);
    mmu::testing::Write(vm_.vm(), mmu::kPageSize);
  }
  ManagedVm& operator*() { return vm_; }
  ManagedVm* operator->() { return &vm_; }
  mmu::MonotonicTime expires() const {
    return vm_.dirty_log_settings()->expires();
  }

 private:
  ManagedVm vm_;
};

TEST(DirtyLogControlTest, ALogIsStoppedWhenItsTtlIsOverAndNotBefore) {
  LoggingVm vm;
  const mmu::MonotonicTime expires = vm.expires();
  EXPECT_FALSE(StopIfExpired(*vm, expires - absl::Nanoseconds(1)).has_value());
  EXPECT_TRUE(vm->vm().LogsDirtyPages());
  const absl::optional<absl::StatusOr<uint64_t>> stopped =
      StopIfExpired(*vm, expires);
  ASSERT_TRUE(stopped.has_value() && stopped->ok());
  EXPECT_EQ(**stopped, 2u);
  EXPECT_FALSE(vm->vm().LogsDirtyPages());
  EXPECT_FALSE(vm->dirty_log_settings().has_value());
  EXPECT_FALSE(StopIfExpired(*vm, expires).has_value());
}

TEST(DirtyLogControlTest, ALogThatCannotBeStoppedKeepsItsTtl) {
  int refused = 0;
  for (uint64_t n = 1;; ++n) {
    LoggingVm vm;
    const mmu::MonotonicTime expires = vm.expires();
    const Attempt attempt = FailOneAllocation(n, [&] {
      const absl::optional<absl::StatusOr<uint64_t>> stopped =
          StopIfExpired(*vm, expires);
      return stopped.has_value() ? stopped->status() : absl::OkStatus();
    });
    if (!attempt.failed) break;
    if (attempt.status.ok()) continue;
    ++refused;
    EXPECT_EQ(mmu::DetailOf(attempt.status).reason,
              "RESOURCE_EXHAUSTED_MEMORY");
    EXPECT_TRUE(vm->vm().LogsDirtyPages());
    ASSERT_TRUE(vm->dirty_log_settings().has_value());
    EXPECT_EQ(vm.expires(), expires);
    // There is memory again.
    const absl::optional<absl::StatusOr<uint64_t>> stopped =
        StopIfExpired(*vm, expires);
    ASSERT_TRUE(stopped.has_value() && stopped->ok());
    EXPECT_EQ(**stopped, 2u);
    EXPECT_FALSE(vm->dirty_log_settings().has_value());
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace mmud
