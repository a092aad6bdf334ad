#include "server/convert/dirty_log_control_convert.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/dirty_log_control.h"
#include "server/control/managed_vm.h"
#include "server/control/shown_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr char kToken[] = "a secret of the owner's";

v1::StartDirtyLogRequest Request() {
  v1::StartDirtyLogRequest request;
  request.set_owner("the first");
  request.set_owner_token(kToken);
  return request;
}

mmu::Reason ReasonOf(const absl::Status& status) {
  return mmu::DetailOf(status).reason;
}

class DirtyLogControlConvertTest : public ::testing::Test {
 protected:
  DirtyLogControlConvertTest()
      : vm_("vms/a", mmu::testing::MakeVm({mmu::testing::Slot(0, 0, kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {}

  absl::StatusOr<v1::StartDirtyLogResponse> Start(
      const v1::StartDirtyLogRequest& request) {
    const auto start = ToStartRequest(request, FactsOf(vm_));
    if (!start.ok()) return start.status();
    const auto job = DirtyLogStartJob::Create(*start, vm_);
    if (!job.ok()) return job.status();
    const auto started = (*job)->Run();
    if (!started.ok()) return started.status();
    return ToResponse(FactsOf(vm_), *started);
  }

  absl::StatusOr<v1::StopDirtyLogResponse> Stop(
      const v1::StopDirtyLogRequest& request) {
    const auto stop = ToStop(request);
    if (!stop.ok()) return stop.status();
    const auto stopped = StopDirtyLog(*stop, vm_);
    if (!stopped.ok()) return stopped.status();
    return ToResponse(*stopped);
  }

  ManagedVm vm_;
};

TEST_F(DirtyLogControlConvertTest, ALogHasWhatItWasStartedWith) {
  v1::StartDirtyLogRequest request = Request();
  request.mutable_lease()->set_seconds(7);
  request.mutable_ttl()->set_seconds(90);
  request.set_initially_set(true);
  request.set_log_new_memslots(false);
  const auto started = Start(request);
  ASSERT_TRUE(started.ok()) << started.status();
  const v1::DirtyLog& log = started->dirty_log();
  EXPECT_EQ(log.vm(), "vms/a");
  EXPECT_EQ(log.log_id().size(), 32u);
  EXPECT_EQ(log.owner(), "the first");
  EXPECT_EQ(log.lease().seconds(), 7);
  EXPECT_EQ(log.ttl().seconds(), 90);
  EXPECT_TRUE(log.has_expire_time());
  EXPECT_TRUE(log.initially_set());
  EXPECT_EQ(log.split(), v1::DIRTY_LOG_SPLIT_ON_CLEAR);
  EXPECT_FALSE(log.log_new_memslots());
  EXPECT_EQ(log.open_epoch(), 1);
  EXPECT_EQ(log.sealed_epoch(), 0);
  ASSERT_EQ(log.slots_size(), 1);
  EXPECT_EQ(log.slots(0).state(), v1::DIRTY_LOG_STATE_ACTIVE);
  EXPECT_EQ(started->ShortDebugString().find(kToken), std::string::npos);
}

TEST_F(DirtyLogControlConvertTest, AStartIsRefusedBeforeItsWorkBegins) {
  v1::StartDirtyLogRequest request = Request();
  request.set_owner_token("short");
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidOwnerToken);
  request = Request();
  request.set_owner("a\nb");
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidOwner);
  request.set_owner("\xc2\x85 is next line");
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidOwner);
  request.set_owner(std::string(129, 'a'));
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidOwner);
  request = Request();
  request.mutable_lease()->set_seconds(3601);
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidLease);
  request = Request();
  request.mutable_ttl()->set_nanos(999'999'999);
  EXPECT_EQ(ReasonOf(ToStartRequest(request, FactsOf(vm_)).status()),
            mmu::Reason::kInvalidTtl);
  EXPECT_FALSE(vm_.vm().LogsDirtyPages());
}

TEST(DirtyLogMetadataTest, ItHasTheProgress) {
  DirtyLogStartJob::Progress progress;
  progress.state = DirtyLogStartJob::State::kSplitting;
  progress.total_bytes = 4096;
  progress.done_bytes = 1024;
  progress.splits = {.of_2m = 3, .of_1g = 2};
  const v1::StartDirtyLogMetadata metadata = ToMetadata(progress);
  EXPECT_EQ(metadata.state(), v1::START_DIRTY_LOG_STATE_SPLITTING);
  EXPECT_EQ(metadata.total_bytes(), 4096);
  EXPECT_EQ(metadata.done_bytes(), 1024);
  EXPECT_EQ(metadata.splits().split_2m_count(), 3);
  EXPECT_EQ(metadata.splits().split_1g_count(), 2);
}

TEST_F(DirtyLogControlConvertTest, OnlyAThrottleAsksForASplitAhead) {
  v1::StartDirtyLogRequest request = Request();
  EXPECT_FALSE(ToStartRequest(request, FactsOf(vm_))->split_ahead.has_value());
  request.mutable_throttle()->set_max_pages_per_second(1'000'000);
  EXPECT_EQ(
      ToStartRequest(request, FactsOf(vm_))->split_ahead->max_pages_per_second,
      1'000'000);
}

TEST_F(DirtyLogControlConvertTest, AStopThatWouldLosePagesCountsThem) {
  ASSERT_TRUE(Start(Request()).ok());
  mmu::testing::Write(vm_.vm(), 0);
  mmu::testing::Write(vm_.vm(), mmu::kPageSize);
  v1::StopDirtyLogRequest stop;
  stop.set_owner_token(kToken);
  const absl::Status refused = Stop(stop).status();
  EXPECT_EQ(ReasonOf(refused), mmu::Reason::kUndeliveredPages);
  EXPECT_EQ(mmu::DetailOf(refused).metadata["open_page_count"], "2");
  stop.set_discard_undelivered(true);
  stop.set_owner_token("the secret of another");
  EXPECT_EQ(ReasonOf(Stop(stop).status()), mmu::Reason::kLogOwned);
  stop.set_force(true);
  stop.set_log_id(std::string(32, '0'));
  EXPECT_EQ(ReasonOf(Stop(stop).status()), mmu::Reason::kLogChanged);
  stop.set_log_id("0");
  EXPECT_EQ(ReasonOf(Stop(stop).status()), mmu::Reason::kInvalidLogId);
  stop.clear_log_id();
  const auto stopped = Stop(stop);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->discarded().open_page_count(), 2);
  EXPECT_FALSE(vm_.vm().LogsDirtyPages());
}

}  // namespace
}  // namespace mmud
