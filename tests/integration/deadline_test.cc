// Deadlines and cancelled calls: the daemon stops its work for the caller.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(50);

// A ReadPages stream with more data than the buffers between client and daemon
// hold. So the daemon has to wait while the client does not read.
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
  // Reads one message, so that the daemon makes more.
  bool ReadOne() { return reader_->Read(&response_); }
  // Reads the rest of the stream and returns its status.
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
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  const std::string name = guest.StartLongOperation();
  google::longrunning::WaitOperationRequest request;
  request.set_name(name);
  // The answer is sent a little before the deadline. On a busy machine it may
  // come too late, but not if there is enough time.
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
  // `timeout` ends the wait too. Without it the wait would last as long as the
  // operation.
  request.mutable_timeout()->set_nanos(1'000'000);
  const auto quick = daemon.client().Must(
      &google::longrunning::Operations::Stub::WaitOperation, request);
  EXPECT_FALSE(quick.done());
  daemon.client().Cancel(name);
  EXPECT_TRUE(daemon.client().WaitDone(name).done());
}

TEST(DeadlineTest, StreamBeyondItsDeadlineEndsAndFreesItsPlace) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(StalledReader::kBytes)});
  StalledReader reader(guest, daemon.client(), kShort);
  // Do not read until the deadline has passed.
  const mmu::MonotonicTime passed = mmu::MonotonicTime::Now() + kShort;
  while (mmu::MonotonicTime::Now() < passed) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(reader.ReadToTheEnd().error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
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
  // The deletion does not wait for the client to read.
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
  v1::GetVmRequest get;
  get.set_name(guest.name());
  EXPECT_EQ(
      ReasonOf(daemon.client().Call(&v1::VmService::Stub::GetVm, get).status),
      "VM_NOT_FOUND");
  // The next read of the client reports why the stream has ended.
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
  // The client does not read until the deletion has begun. Then it reads the
  // rest.
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

// The first attempt may have deleted the VM, may still be deleting it, or may
// not have begun. In each case the retry returns the same answer, and does not
// affect a newer VM of the same name.
TEST(DeadlineTest, ARetriedDeletionHearsOfTheFirstAndSparesASuccessor) {
  constexpr int64_t kDirty = 8;
  Daemon daemon;
  for (int round = 0; round < 10; ++round) {
    const Guest guest(daemon.client(), "alpha", {MakeSlot(2 * kMiB)});
    guest.StartDirtyLog();
    guest.WritePages(kDirty);

    v1::DeleteVmRequest request = DeletionOf(guest);
    request.set_force(true);
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
    EXPECT_EQ(retried.response.discarded().open_page_count(), kDirty);
    if (first.status.ok()) {
      EXPECT_EQ(first.response.discarded().open_page_count(), kDirty);
    }
    if (begun) {
      EXPECT_TRUE(state().status.ok()) << "the successor is gone";
      daemon.client().Must(&v1::VmService::Stub::DeleteVm, DeletionOf(guest));
    }
  }
}

// A clear of a fully sealed slot of 4 TiB.
class LongClear {
 public:
  static constexpr int64_t kBytes = int64_t{4} << 40;

  explicit LongClear(const v1::StartDirtyLogRequest& start = {}) {
    v1::StartDirtyLogRequest log = start;
    log.set_initially_set(true);
    guest_.StartDirtyLog(log);
    v1::SealDirtyLogRequest seal;
    seal.set_vm(guest_.name());
    seal.set_owner_token(kOwnerToken);
    request_.set_epoch(daemon_.client()
                           .Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal)
                           .epoch());
    request_.set_vm(guest_.name());
    request_.set_owner_token(kOwnerToken);
    v1::SlotPages* pages = request_.mutable_pages();
    pages->set_size_bytes(kBytes);
    pages->mutable_extents()->add_extents()->set_size_bytes(kBytes);
  }
  ~LongClear() { Join(); }

  // Begins the clear and returns while it is in progress. To be called once.
  void Begin() {
    thread_ = std::thread([this] {
      status_ = daemon_.client()
                    .Call(&v1::DirtyLogService::Stub::ClearDirtyLog, request_,
                          absl::Minutes(2))
                    .status;
      done_ = true;
    });
    EXPECT_TRUE(Eventually([this] {
      const auto metrics = ParseMetrics(daemon_.MetricsText());
      return metrics.ok() &&
             metrics->Value("mmud_dirty_log_cleared_pages_total") > 0;
    }));
  }
  bool done() const { return done_; }
  // Waits for the end of the clear and returns its status.
  const grpc::Status& Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }

  const TestClient& client() const { return daemon_.client(); }
  const Guest& guest() const { return guest_; }
  grpc::Status Acquire(bool force) const {
    v1::AcquireDirtyLogRequest request;
    request.set_vm(guest_.name());
    request.set_owner("the next");
    request.set_owner_token("token of the next owner");
    request.set_force(force);
    return client()
        .Call(&v1::DirtyLogService::Stub::AcquireDirtyLog, request)
        .status;
  }

 private:
  Daemon daemon_;
  const Guest guest_{daemon_.client(),
                     "alpha",
                     {MakeSlot(kBytes, v1::MEMORY_BACKING_METADATA_ONLY)}};
  v1::ClearDirtyLogRequest request_;
  std::thread thread_;
  grpc::Status status_;  // set when the thread has ended
  std::atomic<bool> done_{false};
};

// A long call checks at each step whether its VM is being deleted.
TEST(DeadlineTest, ADeletionEndsALongClear) {
  LongClear clear;
  clear.Begin();
  v1::DeleteVmRequest request = DeletionOf(clear.guest());
  request.set_force(true);
  clear.client().Must(&v1::VmService::Stub::DeleteVm, request);
  EXPECT_EQ(ReasonOf(clear.Join()), "VM_DELETED")
      << clear.Join().error_message();
}

// Each step of a clear renews the lease, so the lease does not end during the
// clear.
TEST(DeadlineTest, ALeaseLastsAsLongAsAClear) {
  v1::StartDirtyLogRequest start;
  start.mutable_lease()->set_seconds(2);
  LongClear clear(start);
  absl::SleepFor(absl::Milliseconds(2100));  // the lease is over
  clear.Begin();
  const auto lease_end = [&] {
    const google::protobuf::Timestamp end =
        clear.guest().GetDirtyLog().lease_expire_time();
    return absl::Seconds(end.seconds()) + absl::Nanoseconds(end.nanos());
  };
  const absl::Duration first = lease_end();
  absl::Duration last = first;
  while (true) {
    const grpc::Status acquired = clear.Acquire(/*force=*/false);
    last = lease_end();
    if (clear.done()) break;
    ASSERT_EQ(ReasonOf(acquired), "LOG_OWNED") << acquired.error_message();
  }
  EXPECT_TRUE(clear.Join().ok()) << clear.Join().error_message();
  EXPECT_GT(last - first, absl::Milliseconds(20));
  const v1::DirtyLog log = clear.guest().GetDirtyLog();
  EXPECT_EQ(log.owner(), kOwner);
  EXPECT_EQ(log.slots(0).sealed_page_count(), 0);
  EXPECT_EQ(log.slots(0).in_flight_page_count(), LongClear::kBytes / kPage);
}

TEST(DeadlineTest, ATakeoverEndsALongClearAndSealsAgainWhatItTook) {
  LongClear clear;
  clear.Begin();
  const grpc::Status acquired = clear.Acquire(/*force=*/true);
  EXPECT_TRUE(acquired.ok()) << acquired.error_message();
  EXPECT_EQ(ReasonOf(clear.Join()), "LOG_FENCED")
      << clear.Join().error_message();
  const v1::DirtyLog log = clear.guest().GetDirtyLog();
  EXPECT_EQ(log.owner(), "the next");
  EXPECT_EQ(log.slots(0).sealed_page_count(), LongClear::kBytes / kPage);
  EXPECT_EQ(log.slots(0).in_flight_page_count(), 0);
}

TEST(DeadlineTest, ARetriedStartOfADirtyLogIsTheSameOperation) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner(kOwner);
  request.set_owner_token(kOwnerToken);
  request.set_request_id("7f1b0d4e-3c52-4b6e-9f0a-0123456789ab");
  const auto start = [&] {
    return daemon.client().Call(&v1::DirtyLogService::Stub::StartDirtyLog,
                                request);
  };
  const auto first = start();
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  request.set_request_id("7F1B0D4E-3C52-4B6E-9F0A-0123456789AB");
  EXPECT_EQ(start().response.name(), first.response.name());
  // A request with another token is another request: a caller that knows only
  // the id must not get the answer.
  request.set_owner_token("a token of somebody else");
  EXPECT_EQ(ReasonOf(start().status), "REQUEST_ID_REUSED");
  daemon.client().WaitDone(first.response.name());
  EXPECT_EQ(guest.Get().memslots(0).dirty_log().state(),
            v1::DIRTY_LOG_STATE_ACTIVE);
}

}  // namespace
}  // namespace mmud::integration
