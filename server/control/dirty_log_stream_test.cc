#include "server/control/dirty_log_stream.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/convert/convert.h"

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

// A slot at 1 MiB whose log has one sealed epoch.
class PlanTest : public ::testing::Test {
 protected:
  PlanTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, kMiB, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {
    EXPECT_TRUE(mmu::testing::StartLog(vm_.vm()).ok());
    const auto sealed = mmu::testing::SealLog(vm_.vm());
    EXPECT_TRUE(sealed.ok()) << sealed.status();
    request_.set_log_id(vm_.vm().FindDirtyLog()->state.id.ToString());
    request_.set_epoch(static_cast<int64_t>(sealed->epoch));
  }

  std::string Reason() const {
    return mmu::DetailOf(PlanDirtyLog(request_, vm_).status()).reason;
  }

  ManagedVm vm_;
  v1::ReadDirtyPagesRequest request_;
};

TEST_F(PlanTest, AStreamIsResumedWithinItsSlotOnly) {
  const auto reason_at = [this](int64_t gpa_bytes) {
    request_.mutable_start()->set_gpa_bytes(gpa_bytes);
    return Reason();
  };
  constexpr auto kStart = static_cast<int64_t>(kMiB);
  EXPECT_EQ(reason_at(kStart), "");
  EXPECT_EQ(reason_at(2 * kStart), "") << "the end";
  constexpr int64_t kUnit = 64 * 4096;
  for (const int64_t outside :
       {std::numeric_limits<int64_t>::min(),
        std::numeric_limits<int64_t>::min() + kStart, -kUnit, int64_t{0},
        kStart - kUnit, 2 * kStart + kUnit,
        std::numeric_limits<int64_t>::max() - kUnit + 1,
        std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(reason_at(outside), "INVALID_RESUME_OFFSET") << outside;
  }
}

TEST_F(PlanTest, AnEpochThatCannotBeIsUnknownAsAnyOtherThatIsNot) {
  for (const int64_t epoch :
       {std::numeric_limits<int64_t>::min(), int64_t{-1}, int64_t{2},
        std::numeric_limits<int64_t>::max()}) {
    request_.set_epoch(epoch);
    const absl::Status status = PlanDirtyLog(request_, vm_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << epoch;
    EXPECT_EQ(mmu::DetailOf(status).reason, "EPOCH_UNKNOWN") << epoch;
    EXPECT_EQ(mmu::DetailOf(status).field, "epoch") << epoch;
  }
}

TEST_F(PlanTest, ALogWithoutSlotsHasItsIdAndEpochsAllTheSame) {
  ASSERT_TRUE(vm_.vm().DeleteMemslot(0, mmu::Undelivered::kDiscard).ok());
  EXPECT_EQ(Reason(), "");
  request_.set_epoch(77);
  EXPECT_EQ(Reason(), "EPOCH_UNKNOWN");
  request_.set_log_id("00000000000000000000000000000001");
  EXPECT_EQ(Reason(), "LOG_CHANGED");
  request_.set_epoch(0);
  EXPECT_EQ(Reason(), "LOG_CHANGED") << "a peek";
  request_.clear_log_id();
  EXPECT_EQ(Reason(), "");
}

// Every second page of 128 MiB is dirty, which one piece of the log has.
class StripedTest : public ::testing::Test {
 protected:
  StripedTest()
      : vm_("vms/a",
            mmu::testing::MakeVm({mmu::testing::Slot(
                0, 0, kPages << mmu::kPageShift, mmu::Level::k4K,
                mmu::BackingKind::kMetadataOnly)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {
    EXPECT_TRUE(mmu::testing::StartLog(vm_.vm()).ok());
    for (uint64_t page = 0; page < kPages; page += 2) {
      mmu::testing::Write(vm_.vm(), page << mmu::kPageShift);
    }
  }

  DirtyPageChunks Chunks() const {
    v1::ReadDirtyPagesRequest request;
    request.set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
    request.set_max_message_bytes(kMinMessageBytes);
    const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(request, vm_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return DirtyPageChunks(*plan);
  }

  static constexpr uint64_t kPages = uint64_t{kMinMessageBytes} / 8 * 64;
  ManagedVm vm_;
};

TEST_F(StripedTest, AStreamMakesOneChunkAtATime) {
  DirtyPageChunks chunks = Chunks();
  int64_t count = 0;
  for (;;) {
    const uint64_t before = mmu::testing::AllocationsOfThread().bytes;
    const auto chunk = chunks.Next(vm_, [] { return absl::OkStatus(); });
    // Of all of them it would be ten times as much.
    EXPECT_LT(mmu::testing::AllocationsOfThread().bytes - before, 64u << 10);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    if (!chunk->has_value()) break;
    ++count;
    EXPECT_EQ(chunks.Trailer().chunk_count(), count);
  }
  EXPECT_EQ(count, 103) << "five words, of 32 extents each, in most";
  EXPECT_EQ(chunks.Trailer().dirty_page_count(),
            static_cast<int64_t>(kPages / 2));
}

TEST_F(StripedTest, AStreamCanEndBetweenTheChunksOfAPiece) {
  DirtyPageChunks chunks = Chunks();
  const auto first = chunks.Next(vm_, [] { return absl::OkStatus(); });
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(first->has_value());
  const auto second =
      chunks.Next(vm_, [] { return absl::CancelledError("over"); });
  EXPECT_EQ(second.status(), absl::CancelledError("over"));
}

}  // namespace
}  // namespace mmud
