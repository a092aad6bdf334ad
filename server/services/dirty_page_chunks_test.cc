#include "server/services/dirty_page_chunks.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_stream_convert.h"

namespace mmud {
namespace {

// Every second page of 128 MiB is dirty; one piece of the log covers all of it.
class DirtyPageChunksTest : public ::testing::Test {
 protected:
  DirtyPageChunksTest()
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
    const absl::StatusOr<DirtyPagesCall> call = ToDirtyPagesCall(request);
    EXPECT_TRUE(call.ok()) << call.status();
    const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(call->pages, vm_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return DirtyPageChunks(*plan, call->form);
  }

  static constexpr uint64_t kPages = uint64_t{kMinMessageBytes} / 8 * 64;
  ManagedVm vm_;
};

TEST_F(DirtyPageChunksTest, AStreamMakesOneChunkAtATime) {
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

TEST_F(DirtyPageChunksTest, AStreamCanEndBetweenTheChunksOfAPiece) {
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
