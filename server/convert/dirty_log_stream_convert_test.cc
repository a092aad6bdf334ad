#include "server/convert/dirty_log_stream_convert.h"

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A slot at 1 MiB whose log has one sealed epoch.
class ReadDirtyPagesTest : public ::testing::Test {
 protected:
  ReadDirtyPagesTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, kMiB, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {
    EXPECT_TRUE(mmu::testing::StartLog(vm_.vm()).ok());
    const auto sealed = mmu::testing::SealLog(vm_.vm());
    EXPECT_TRUE(sealed.ok()) << sealed.status();
    request_.set_log_id(vm_.vm().FindDirtyLog()->state.id.ToString());
    request_.set_epoch(static_cast<int64_t>(sealed->epoch));
  }

  absl::Status Plan() const {
    const absl::StatusOr<DirtyPagesCall> call = ToDirtyPagesCall(request_, vm_);
    if (!call.ok()) return call.status();
    return PlanDirtyLog(call->pages, vm_).status();
  }

  ManagedVm vm_;
  v1::ReadDirtyPagesRequest request_;
};

TEST_F(ReadDirtyPagesTest, AnEpochThatCannotBeIsUnknownAsAnyOtherThatIsNot) {
  for (const int64_t epoch :
       {std::numeric_limits<int64_t>::min(), int64_t{-1}, int64_t{2},
        std::numeric_limits<int64_t>::max()}) {
    request_.set_epoch(epoch);
    const absl::Status status = Plan();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << epoch;
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kEpochUnknown)
        << epoch;
    EXPECT_EQ(mmu::DetailOf(status).field, "epoch") << epoch;
  }
}

TEST_F(ReadDirtyPagesTest, ARangeIsOfOneSlot) {
  v1::Extent& range = *request_.mutable_range();
  range.set_gpa_bytes(static_cast<int64_t>(kMiB));
  range.set_size_bytes(64 * 4096);
  EXPECT_EQ(mmu::DetailOf(Plan()).reason, mmu::Reason::kInvalidRange);
  request_.add_slots(0);
  EXPECT_TRUE(Plan().ok()) << Plan();
  range.set_size_bytes(4096);
  EXPECT_EQ(mmu::DetailOf(Plan()).reason, mmu::Reason::kInvalidRange);
  range.set_size_bytes(1);
  EXPECT_EQ(mmu::DetailOf(Plan()).reason, mmu::Reason::kUnaligned);
}

TEST_F(ReadDirtyPagesTest, AnEpochIsOfALogThatIsNamed) {
  request_.clear_log_id();
  EXPECT_EQ(mmu::DetailOf(Plan()).reason, mmu::Reason::kInvalidLogId);
}

// Every second page of 128 MiB is dirty; one piece of the log covers all of it.
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
    const absl::StatusOr<DirtyPagesCall> call = ToDirtyPagesCall(request, vm_);
    EXPECT_TRUE(call.ok()) << call.status();
    const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(call->pages, vm_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return DirtyPageChunks(*plan, call->form);
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
    // All chunks at once would need ten times as much.
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
