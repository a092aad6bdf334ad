// Deadlines and callers that leave: the daemon stops working for them.

#include <chrono>
#include <string>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(50);

TEST(DeadlineTest, WaitAnswersWithTheStateOfThenBeforeTheDeadline) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  const std::string name = guest.StartRandomWrites(1);
  google::longrunning::WaitOperationRequest request;
  request.set_name(name);
  const auto result = daemon.client().Call(
      &google::longrunning::Operations::Stub::WaitOperation, request,
      absl::Milliseconds(500));
  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_FALSE(result.response.done());
  // `timeout` ends it too.
  request.mutable_timeout()->set_nanos(1'000'000);
  const absl::Time start = absl::Now();
  const auto quick = daemon.client().Must(
      &google::longrunning::Operations::Stub::WaitOperation, request);
  EXPECT_FALSE(quick.done());
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  guest.StopWorkload();
  EXPECT_TRUE(daemon.client().WaitDone(name).done());
}

TEST(DeadlineTest, StreamBeyondItsDeadlineEndsAndFreesItsPlace) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(256 * kMiB)});
  guest.WritePages(256 * kMiB / kPage);
  grpc::ClientContext context;
  SetTimeout(kShort, &context);
  v1::GuestMemoryService::Stub stub(daemon.client().channel());
  v1::ReadPagesRequest request;
  request.set_vm(guest.name());
  request.add_extents()->set_size_bytes(256 * kMiB);
  const auto reader = stub.ReadPages(&context, request);
  // Nothing is read until the deadline has passed.
  while (context.deadline() > std::chrono::system_clock::now()) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  v1::ReadPagesResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // A VM with a stream cannot be deleted: it ends when the stream has.
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
}

TEST(DeadlineTest, SlowStartOfADirtyLogIsGivenUpAndLeavesItOff) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                              v1::PAGE_SIZE_2M)});
  guest.ReadWords(64 * kMiB, 2 * kMiB);
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  const auto result = daemon.client().Call(
      &v1::DirtyLogService::Stub::StartDirtyLog, request, kShort);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().state(),
            v1::DIRTY_LOG_STATE_OFF);
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
}

TEST(DeadlineTest, CancelledStreamIsNoticed) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(64 * kMiB)});
  guest.WritePages(64 * kMiB / kPage);
  grpc::ClientContext context;
  v1::GuestMemoryService::Stub stub(daemon.client().channel());
  v1::ReadPagesRequest request;
  request.set_vm(guest.name());
  request.add_extents()->set_size_bytes(64 * kMiB);
  const auto reader = stub.ReadPages(&context, request);
  v1::ReadPagesResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
  EXPECT_EQ(daemon.client().Health(), "SERVING");
}

}  // namespace
}  // namespace mmud::integration
