#include "server/control/dirty_log_control.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// `owner` is the first byte of its key.
DirtyLogStartRequest Request(uint8_t owner = 1) {
  DirtyLogStartRequest request;
  request.start.claim.owner = "somebody";
  request.start.claim.key.bytes[0] = owner;
  return request;
}

mmu::LogCall CallOf(uint8_t owner) {
  mmu::LogCall call;
  call.key.bytes[0] = owner;
  call.now = mmu::MonotonicTime::Now();
  return call;
}

mmu::Reason ReasonOf(const absl::Status& status) {
  return mmu::DetailOf(status).reason;
}

class DirtyLogControlTest : public ::testing::Test {
 protected:
  DirtyLogControlTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {}

  absl::StatusOr<StartedDirtyLog> Start(const DirtyLogStartRequest& request) {
    const auto job = DirtyLogStartJob::Create(request, vm_);
    if (!job.ok()) return job.status();
    return (*job)->Run();
  }

  ManagedVm vm_;
};

TEST_F(DirtyLogControlTest, TheSameStartAgainIsToldOfItsLog) {
  const auto first = Start(Request());
  ASSERT_TRUE(first.ok());
  const auto again = Start(Request());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->log.state.id, first->log.state.id);
  EXPECT_EQ(ReasonOf(DirtyLogStartJob::Create(Request(2), vm_).status()),
            mmu::Reason::kDirtyLogActive);
}

// The first start has split the guest's huge pages; huge pages may have been
// made since.
TEST_F(DirtyLogControlTest, TheSameStartAgainSplitsNothing) {
  DirtyLogStartRequest request = Request();
  request.start.config.split = mmu::SplitPolicy::kEager;
  request.split_ahead.emplace().max_pages_per_second = 1'000'000;
  const auto first = DirtyLogStartJob::Create(request, vm_);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->progress().state, DirtyLogStartJob::State::kSplitting);
  EXPECT_EQ((*first)->progress().total_bytes, static_cast<int64_t>(kMiB));
  EXPECT_FALSE(vm_.vm().LogsDirtyPages()) << "that is its work";
  ASSERT_TRUE((*first)->Run().ok());
  EXPECT_EQ((*first)->progress().state, DirtyLogStartJob::State::kDone);
  const auto again = DirtyLogStartJob::Create(request, vm_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->progress().total_bytes, 0);
  EXPECT_EQ((*again)->progress().state, DirtyLogStartJob::State::kProtecting);
  EXPECT_TRUE((*again)->Run().ok());
}

// The start named slot 5, which was deleted after the start was checked.
TEST_F(DirtyLogControlTest, TheSplitAheadOfDeletedSlotsIsNotOneOfAllSlots) {
  const auto all = MakeSplitAhead({}, {}, vm_);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_NE(*all, nullptr);
  EXPECT_EQ((*all)->Progress().total_bytes, static_cast<int64_t>(kMiB));
  const auto one_left = MakeSplitAhead({0, 5}, {}, vm_);
  ASSERT_TRUE(one_left.ok()) << one_left.status();
  ASSERT_NE(*one_left, nullptr);
  EXPECT_EQ((*one_left)->Progress().total_bytes, static_cast<int64_t>(kMiB));
  const auto none_left = MakeSplitAhead({5}, {}, vm_);
  ASSERT_TRUE(none_left.ok()) << none_left.status();
  EXPECT_EQ(*none_left, nullptr);
}

TEST_F(DirtyLogControlTest, ACancelledStartLeavesTheLogOff) {
  const auto job = DirtyLogStartJob::Create(Request(), vm_);
  ASSERT_TRUE(job.ok());
  (*job)->Cancel();
  EXPECT_EQ(ReasonOf((*job)->Run().status()), mmu::Reason::kOperationCancelled);
  EXPECT_EQ((*job)->progress().state, DirtyLogStartJob::State::kGivenUp);
  EXPECT_FALSE(vm_.vm().LogsDirtyPages());
}

TEST_F(DirtyLogControlTest, AStopThatWouldLosePagesSaysOfWhichVm) {
  ASSERT_TRUE(Start(Request()).ok());
  mmu::testing::Write(vm_.vm(), 0);
  mmu::DirtyLogStop stop;
  stop.by = CallOf(1);
  EXPECT_EQ(ReasonOf(StopDirtyLog(stop, vm_).status()),
            mmu::Reason::kUndeliveredPages);
  EXPECT_EQ(ApiDetailOf(StopDirtyLog(stop, vm_).status()).resource_name,
            "vms/a");
  stop.undelivered = mmu::Undelivered::kDiscard;
  const auto stopped = StopDirtyLog(stop, vm_);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->result.discarded.open, 1u);
  EXPECT_FALSE(vm_.vm().LogsDirtyPages());
}

// Ends the log with the call that housekeeping makes.
TEST_F(DirtyLogControlTest, ALogEndsWithItsTtlAndNotBefore) {
  DirtyLogStartRequest request = Request();
  request.start.ttl = absl::Seconds(1);
  ASSERT_TRUE(Start(request).ok());
  const mmu::MonotonicTime end = vm_.vm().FindDirtyLog()->ttl_end;
  EXPECT_FALSE(vm_.vm()
                   .StopAbandonedDirtyLog(end - absl::Nanoseconds(1), nullptr)
                   .has_value());
  EXPECT_TRUE(vm_.vm().StopAbandonedDirtyLog(end, nullptr).has_value());
  EXPECT_FALSE(vm_.vm().LogsDirtyPages());
}

}  // namespace
}  // namespace mmud
