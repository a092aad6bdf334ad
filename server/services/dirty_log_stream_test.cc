#include "server/services/dirty_log_stream.h"

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"
#include "server/managed_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// The log is looked at, a slot goes, and then the slots are looked up.
TEST(DirtyLogStreamTest, ASlotThatGoesBesideThePlanIsLeftOutOrNotFound) {
  ManagedVm vm("vms/a",
               mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB),
                                     mmu::testing::Slot(1, kMiB, kMiB)}),
               WallTime::Now(), ManagedVm::MetricsLabel::kOwn);
  ASSERT_TRUE(mmu::testing::StartLog(vm.vm()).ok());
  const absl::optional<mmu::DirtyLogView> log = vm.vm().FindDirtyLog();
  ASSERT_TRUE(log.has_value());
  ASSERT_TRUE(vm.vm().DeleteMemslot(0, mmu::Undelivered::kDiscard).ok());
  const absl::StatusOr<std::vector<SlotPlan>> all = PlanSlots(vm, *log, 0, {});
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 1u);
  EXPECT_EQ((*all)[0].slot, 1u);
  // A plan of no slot would be cut to the range of its one slot.
  EXPECT_EQ(mmu::DetailOf(PlanSlots(vm, *log, 0, {0}).status()).reason,
            "MEMSLOT_NOT_FOUND");
}

}  // namespace
}  // namespace mmud
