#include "server/convert/dirty_log_stream_convert.h"

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/managed_vm.h"

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
    const absl::StatusOr<DirtyPagesCall> call = ToDirtyPagesCall(request_);
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

}  // namespace
}  // namespace mmud
