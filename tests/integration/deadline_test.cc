// Deadlines and callers that leave: the daemon stops working for them.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(50);

// A ReadPages stream of more than fits in what is between it and the daemon, so
// the daemon waits for it while it does not read.
class StalledReader {
 public:
  // Without a timeout the stream has no deadline.
  explicit StalledReader(const Guest& guest, const TestClient& client,
                         absl::Duration timeout = absl::InfiniteDuration())
      : stub_(client.channel()) {
    guest.WritePages(kBytes / kPage);
    if (timeout != absl::InfiniteDuration()) SetTimeout(timeout, &context_);
    v1::ReadPagesRequest request;
    request.set_vm(guest.name());
    request.add_extents()->set_size_bytes(kBytes);
    reader_ = stub_.ReadPages(&context_, request);
  }

  static constexpr int64_t kBytes = 64 * kMiB;

  grpc::ClientContext& context() { return context_; }
  // One message, after which the daemon makes the next ones.
  bool ReadOne() { return reader_->Read(&response_); }
  // What it ends with for a reader that reads again.
  grpc::Status ReadToTheEnd() {
    while (ReadOne()) {
    }
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  v1::GuestMemoryService::Stub stub_;
  v1::ReadPagesResponse response_;
  std::unique_ptr<grpc::ClientReader<v1::ReadPagesResponse>> reader_;
};

v1::DeleteVmRequest DeletionOf(const Guest& guest) {
  v1::DeleteVmRequest request;
  request.set_name(guest.name());
  return request;
}

TEST(DeadlineTest, WaitAnswersWithTheStateOfThenBeforeTheDeadline) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  const std::string name = guest.StartRandomWrites(1);
  google::longrunning::WaitOperationRequest request;
  request.set_name(name);
  // The answer is on its way a little before the deadline. On a busy machine it
  // comes too late at times, but not when there is time enough.
  bool answered = false;
  for (int tries = 0; tries < 6 && !answered; ++tries) {
    const auto result = daemon.client().Call(
        &google::longrunning::Operations::Stub::WaitOperation, request,
        absl::Milliseconds(500 << tries));
    answered = result.status.ok();
    EXPECT_FALSE(result.response.done());
    EXPECT_TRUE(answered || result.status.error_code() ==
                                grpc::StatusCode::DEADLINE_EXCEEDED)
        << result.status.error_message();
  }
  EXPECT_TRUE(answered);
  // `timeout` ends it too; else it would last as long as the operation.
  request.mutable_timeout()->set_nanos(1'000'000);
  const auto quick = daemon.client().Must(
      &google::longrunning::Operations::Stub::WaitOperation, request);
  EXPECT_FALSE(quick.done());
  guest.StopWorkload();
  EXPECT_TRUE(daemon.client().WaitDone(name).done());
}

TEST(DeadlineTest, StreamBeyondItsDeadlineEndsAndFreesItsPlace) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(StalledReader::kBytes)});
  StalledReader reader(guest, daemon.client(), kShort);
  // Nothing is read until the deadline has passed.
  const mmu::MonotonicTime passed = mmu::MonotonicTime::Now() + kShort;
  while (mmu::MonotonicTime::Now() < passed) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(reader.ReadToTheEnd().error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
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
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
}

TEST(DeadlineTest, CancelledStreamIsNoticed) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(StalledReader::kBytes)});
  StalledReader reader(guest, daemon.client());
  ASSERT_TRUE(reader.ReadOne());
  reader.context().TryCancel();
  EXPECT_EQ(reader.ReadToTheEnd().error_code(), grpc::StatusCode::CANCELLED);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
  EXPECT_EQ(daemon.client().Health(), "SERVING");
}

TEST(DeadlineTest, ADeletionEndsTheStreamOfAReaderThatDoesNotRead) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(StalledReader::kBytes)});
  StalledReader reader(guest, daemon.client());
  ASSERT_TRUE(reader.ReadOne());
  // The VM goes whether it reads or not.
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
  v1::GetVmRequest get;
  get.set_name(guest.name());
  EXPECT_EQ(
      ReasonOf(daemon.client().Call(&v1::VmService::Stub::GetVm, get).status),
      "VM_NOT_FOUND");
  // And when it reads again it hears why there is no more.
  const grpc::Status status = reader.ReadToTheEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "VM_DELETED") << status.error_message();
}

TEST(DeadlineTest, AReaderThatReadsHearsOfTheDeletion) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(StalledReader::kBytes)});
  StalledReader reader(guest, daemon.client());
  ASSERT_TRUE(reader.ReadOne());
  std::thread deleter([&] {
    daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
  });
  // It holds still until the deletion has begun, and then reads what there is.
  EXPECT_TRUE(Eventually([&] {
    v1::GetVmRequest get;
    get.set_name(guest.name());
    const auto got = daemon.client().Call(&v1::VmService::Stub::GetVm, get);
    return !got.status.ok() ||
           got.response.vm().state() == v1::VM_STATE_DELETING;
  }));
  const grpc::Status status = reader.ReadToTheEnd();
  deleter.join();
  EXPECT_EQ(ReasonOf(status), "VM_DELETED") << status.error_message();
}

// Whether the first attempt has ended the VM, still does, or has not begun: the
// retry hears the same, and does nothing to a VM of that name that was made
// since.
TEST(DeadlineTest, ARetriedDeletionHearsOfTheFirstAndSparesASuccessor) {
  constexpr int64_t kDirty = 8;
  Daemon daemon;
  for (int round = 0; round < 10; ++round) {
    v1::Memslot huge =
        MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY, v1::PAGE_SIZE_2M);
    huge.set_slot(1);
    huge.set_gpa_bytes(2 * kMiB);
    const Guest guest(daemon.client(), "alpha", {MakeSlot(2 * kMiB), huge});
    v1::StartDirtyLogRequest log;
    log.set_vm(guest.name());
    log.add_slots(0);
    daemon.client().Must(&v1::DirtyLogService::Stub::StartDirtyLog, log);
    guest.WritePages(kDirty);
    guest.ReadWords(66 * kMiB, 2 * kMiB);
    // It has the VM in hand, and looks now and then whether to go on: so long
    // takes the deletion.
    log.set_slots(0, 1);
    log.mutable_throttle()->mutable_min_pause()->set_seconds(10);
    std::thread paced([&] {
      EXPECT_FALSE(daemon.client()
                       .Call(&v1::DirtyLogService::Stub::StartDirtyLog, log)
                       .status.ok());
    });
    EXPECT_TRUE(Eventually(
        [&] { return guest.Get().mapped_pages().pages_2m_count() < 32; }));

    v1::DeleteVmRequest request = DeletionOf(guest);
    request.set_discard_unacked(true);
    request.set_request_id(
        absl::StrFormat("7f1b0d4e-3c52-4b6e-9f0a-%012x", round));
    const auto first = daemon.client().Call(&v1::VmService::Stub::DeleteVm,
                                            request, absl::Milliseconds(5));
    v1::GetVmRequest get;
    get.set_name(guest.name());
    const auto state = [&] {
      return daemon.client().Call(&v1::VmService::Stub::GetVm, get);
    };
    const auto seen = state();
    const bool begun = !seen.status.ok() ||
                       seen.response.vm().state() == v1::VM_STATE_DELETING;
    if (begun) {
      EXPECT_TRUE(Eventually([&] { return !state().status.ok(); }));
      const Guest successor(daemon.client(), "alpha", {MakeSlot(kMiB)});
    }
    const auto retried =
        daemon.client().Call(&v1::VmService::Stub::DeleteVm, request);
    EXPECT_TRUE(retried.status.ok()) << retried.status.error_message();
    EXPECT_EQ(retried.response.discarded_page_count(), kDirty);
    if (first.status.ok()) {
      EXPECT_EQ(first.response.discarded_page_count(), kDirty);
    }
    paced.join();
    if (begun) {
      EXPECT_TRUE(state().status.ok()) << "the successor is gone";
      daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
    }
  }
}

// A call that works for long looks, at each of its steps, whether its VM goes.
TEST(DeadlineTest, ADeletionEndsALongClear) {
  constexpr int64_t kTiB = int64_t{1} << 40;
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(4 * kTiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  v1::StartDirtyLogRequest log;
  log.set_vm(guest.name());
  log.set_initially_set(true);
  daemon.client().Must(&v1::DirtyLogService::Stub::StartDirtyLog, log);
  // The first pages of the slot; the seal is of all.
  v1::GetDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
  seal.mutable_range()->set_size_bytes(64 * kPage);
  grpc::ClientContext context;
  const auto stream = v1::DirtyLogService::Stub(daemon.client().channel())
                          .GetDirtyLog(&context, seal);
  v1::GetDirtyLogResponse message;
  while (stream->Read(&message)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  std::thread clear([&] {
    v1::ClearDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_epoch(1);
    request.set_size_bytes(4 * kTiB);
    request.mutable_extents()->add_extents()->set_size_bytes(4 * kTiB);
    const auto result = daemon.client().Call(
        &v1::DirtyLogService::Stub::ClearDirtyLog, request, absl::Minutes(2));
    EXPECT_EQ(ReasonOf(result.status), "VM_DELETED")
        << result.status.error_message();
  });
  EXPECT_TRUE(Eventually([&] {  // it is in the middle of it
    const auto metrics = ParseMetrics(daemon.MetricsText());
    return metrics.ok() &&
           metrics->Value("mmud_dirty_log_cleared_pages_total") > 0;
  }));
  v1::DeleteVmRequest request = DeletionOf(guest);
  request.set_discard_unacked(true);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, request);
  clear.join();
}

TEST(DeadlineTest, ARetryDoesNotFailWithTheAttemptBeforeIt) {
  constexpr int64_t kPages = 32;
  Daemon daemon;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(kPages * 2 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                v1::PAGE_SIZE_2M)});
  guest.ReadWords(kPages * 2 * kMiB, 2 * kMiB);
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.mutable_throttle()->mutable_min_pause()->set_nanos(50'000'000);
  request.set_request_id("7f1b0d4e-3c52-4b6e-9f0a-0123456789ab");
  std::atomic<bool> over{false};
  std::thread first([&] {
    // All pauses together last 1.6 s.
    const auto result =
        daemon.client().Call(&v1::DirtyLogService::Stub::StartDirtyLog, request,
                             absl::Milliseconds(300));
    EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    over = true;
  });
  EXPECT_TRUE(Eventually([&] {
    return over || guest.Get().mapped_pages().pages_2m_count() < kPages;
  }));
  v1::StartDirtyLogRequest retry = request;
  retry.set_request_id("7F1B0D4E-3C52-4B6E-9F0A-0123456789AB");
  daemon.client().Must(&v1::DirtyLogService::Stub::StartDirtyLog, retry);
  first.join();
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().state(),
            v1::DIRTY_LOG_STATE_ACTIVE);
}

}  // namespace
}  // namespace mmud::integration
