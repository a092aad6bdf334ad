#include "server/control/housekeeping.h"

#include <cstdint>
#include <new>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/control/abandoned_logs.h"
#include "server/control/vm_registry.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// The log stays, a line reports that it stays, and it ends once there is memory
// again.
TEST(HousekeepingTest, AnAbandonedLogThatFindsNoMemoryToEndIsNotSilent) {
  VmRegistry vms{VmRegistry::Limits()};
  AbandonedLogs abandoned;
  mmu::VmConfig config;
  config.memslots.push_back(mmu::testing::Slot(0, 0, kMiB));
  const VmUse vm = vms.Create("vms/a", config).value();
  mmu::DirtyLogStart start = mmu::testing::TestStart(mmu::DirtyLogConfig());
  start.ttl = absl::Seconds(1);
  ASSERT_TRUE(vm->vm().StartDirtyLog(start, nullptr).ok());
  const mmu::MonotonicTime end = *vm->vm().FindDirtyLogEnd();
  HousekeepOnce(vms, abandoned, end - absl::Nanoseconds(1));
  bool said = false;
  for (uint64_t n = 1; !said && vm->vm().LogsDirtyPages(); ++n) {
    ::testing::internal::CaptureStderr();
    mmu::testing::FailOneAllocation(n, [&] {
      try {
        HousekeepOnce(vms, abandoned, end);
      } catch (const std::bad_alloc&) {
      }
      return absl::OkStatus();
    });
    said = absl::StrContains(::testing::internal::GetCapturedStderr(),
                             "dirty log not stopped");
  }
  EXPECT_TRUE(said);
  EXPECT_TRUE(vm->vm().LogsDirtyPages());
  EXPECT_EQ(abandoned.logs(), 0u);
  HousekeepOnce(vms, abandoned, end);
  EXPECT_FALSE(vm->vm().LogsDirtyPages());
  EXPECT_EQ(abandoned.logs(), 1u);
}

}  // namespace
}  // namespace mmud
