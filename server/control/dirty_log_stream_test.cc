#include "server/control/dirty_log_stream.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A slot goes after the log was read and before the slots are looked up.
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
  // A plan without slots would be cut to the range of its only slot.
  EXPECT_EQ(mmu::DetailOf(PlanSlots(vm, *log, 0, {0}).status()).reason,
            mmu::Reason::kMemslotNotFound);
}

// A slot at 1 MiB whose log has one sealed epoch.
class PlanTest : public ::testing::Test {
 protected:
  PlanTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, kMiB, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {
    EXPECT_TRUE(mmu::testing::StartLog(vm_.vm()).ok());
    const auto sealed = mmu::testing::SealLog(vm_.vm());
    EXPECT_TRUE(sealed.ok()) << sealed.status();
    request_.log_id = vm_.vm().FindDirtyLog()->state.id;
    request_.epoch = sealed->epoch;
  }

  mmu::Reason Reason() const {
    return mmu::DetailOf(PlanDirtyLog(request_, vm_).status()).reason;
  }

  ManagedVm vm_;
  DirtyPagesRequest request_;
};

TEST_F(PlanTest, AStreamIsResumedWithinItsSlotOnly) {
  const auto reason_at = [this](int64_t gpa_bytes) {
    request_.start = DirtyLogPosition{.slot = 0, .gpa_bytes = gpa_bytes};
    return Reason();
  };
  constexpr auto kStart = static_cast<int64_t>(kMiB);
  EXPECT_EQ(reason_at(kStart), mmu::Reason::kNone);
  EXPECT_EQ(reason_at(2 * kStart), mmu::Reason::kNone) << "the end";
  constexpr int64_t kUnit = 64 * 4096;
  for (const int64_t outside :
       {std::numeric_limits<int64_t>::min(),
        std::numeric_limits<int64_t>::min() + kStart, -kUnit, int64_t{0},
        kStart - kUnit, 2 * kStart + kUnit,
        std::numeric_limits<int64_t>::max() - kUnit + 1,
        std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(reason_at(outside), mmu::Reason::kInvalidResumeOffset) << outside;
  }
}

TEST_F(PlanTest, ALogWithoutSlotsHasItsIdAndEpochsAllTheSame) {
  ASSERT_TRUE(vm_.vm().DeleteMemslot(0, mmu::Undelivered::kDiscard).ok());
  EXPECT_EQ(Reason(), mmu::Reason::kNone);
  request_.epoch = 77;
  EXPECT_EQ(Reason(), mmu::Reason::kEpochUnknown);
  request_.log_id->low ^= 1;
  EXPECT_EQ(Reason(), mmu::Reason::kLogChanged);
  request_.epoch = 0;
  EXPECT_EQ(Reason(), mmu::Reason::kLogChanged) << "a peek";
  request_.log_id.reset();
  EXPECT_EQ(Reason(), mmu::Reason::kNone);
}

// The reader holds no more than its caller has room for.
TEST_F(PlanTest, PiecesAreNoLargerThanAsked) {
  const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(request_, vm_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  DirtyLogReader reader(*plan, /*piece_pages=*/192);
  const auto go = [] { return absl::OkStatus(); };
  std::vector<uint64_t> pages;
  uint64_t next = kMiB;
  for (;;) {
    const auto piece = reader.Next(vm_, go);
    ASSERT_TRUE(piece.ok()) << piece.status();
    if (!piece->has_value()) break;
    EXPECT_EQ((*piece)->start.value(), next);
    EXPECT_EQ((*piece)->words.size(), ((*piece)->page_count + 63) / 64);
    pages.push_back((*piece)->page_count);
    next += (*piece)->page_count * 4096;
  }
  EXPECT_EQ(pages, (std::vector<uint64_t>{192, 64}));
}

TEST_F(PlanTest, AReaderEndsWithTheErrorOfItsCaller) {
  DirtyLogReader reader(PlanDirtyLog(request_, vm_).value(), 64);
  EXPECT_EQ(
      reader.Next(vm_, [] { return absl::CancelledError("over"); }).status(),
      absl::CancelledError("over"));
}

}  // namespace
}  // namespace mmud
