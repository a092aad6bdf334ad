// Splits as long-running operations: progress, pace, pause, cancel, conflicts.

#include <string>

#include "gtest/gtest.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using OperationsStub = google::longrunning::Operations::Stub;
using SplitStub = v1::SplitService::Stub;

// A guest whose memory is mapped by 1 GiB pages, without contents.
Guest HugeGuest(const Daemon& daemon, int64_t gibibytes) {
  Guest guest(daemon.client(), "huge",
              {MakeSlot(gibibytes * kGiB, v1::MEMORY_BACKING_METADATA_ONLY,
                        v1::PAGE_SIZE_1G)});
  guest.ReadWords(gibibytes * kGiB, kGiB);
  EXPECT_EQ(guest.Get().mapped_pages().pages_1g_count(), gibibytes);
  return guest;
}

v1::SplitMetadata MetadataOf(const Daemon& daemon, const std::string& name) {
  return Unpack<v1::SplitMetadata>(
      daemon.client().GetOperation(name).metadata());
}

v1::SplitHugePagesRequest Paced(int64_t pages_per_second) {
  v1::SplitHugePagesRequest request;
  request.mutable_throttle()->set_max_pages_per_second(pages_per_second);
  return request;
}

void Cancel(const Daemon& daemon, const std::string& name) {
  google::longrunning::CancelOperationRequest request;
  request.set_name(name);
  daemon.client().Must(&OperationsStub::CancelOperation, request);
}

TEST(SplitTest, WholeSplitLeavesOnlySmallPagesAndCountsEachStep) {
  Daemon daemon;
  const Guest guest = HugeGuest(daemon, 2);
  const auto operation =
      daemon.client().WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  const auto response =
      Unpack<v1::SplitHugePagesResponse>(operation.response());
  EXPECT_EQ(response.splits().split_1g_count(), 2);
  EXPECT_EQ(response.splits().split_2m_count(), 2 * 512);
  EXPECT_EQ(response.cost().tlb_flush_count(), 0);
  const auto metadata = Unpack<v1::SplitMetadata>(operation.metadata());
  EXPECT_EQ(metadata.state(), v1::SPLIT_STATE_DONE);
  EXPECT_EQ(metadata.done_bytes(), 2 * kGiB);
  const v1::PageCounts pages = guest.Get().mapped_pages();
  EXPECT_EQ(pages.pages_1g_count(), 0);
  EXPECT_EQ(pages.pages_2m_count(), 0);
  EXPECT_EQ(pages.pages_4k_count(), 2 * 512 * 512);
  EXPECT_EQ(guest.Audit(), "");
}

TEST(SplitTest, TargetOf2MStopsThere) {
  Daemon daemon;
  const Guest guest = HugeGuest(daemon, 2);
  v1::SplitHugePagesRequest request;
  request.set_target_page_size(v1::PAGE_SIZE_2M);
  request.add_ranges()->set_size_bytes(kGiB);
  daemon.client().WaitDone(guest.StartSplit(request));
  const v1::PageCounts pages = guest.Get().mapped_pages();
  EXPECT_EQ(pages.pages_1g_count(), 1);
  EXPECT_EQ(pages.pages_2m_count(), 512);
  EXPECT_EQ(pages.pages_4k_count(), 0);
}

TEST(SplitTest, ValidateOnlyChangesNothing) {
  Daemon daemon;
  const Guest guest = HugeGuest(daemon, 1);
  v1::SplitHugePagesRequest request;
  request.set_vm(guest.name());
  request.set_validate_only(true);
  const auto operation =
      daemon.client().Must(&SplitStub::SplitHugePages, request);
  EXPECT_TRUE(operation.done());
  EXPECT_EQ(guest.Get().mapped_pages().pages_1g_count(), 1);
}

TEST(SplitTest, PausedSplitStandsStillAndGoesOnAtItsNewPace) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest = HugeGuest(daemon, 4);
  const std::string name = guest.StartSplit(Paced(50'000));
  ASSERT_TRUE(
      Eventually([&] { return MetadataOf(daemon, name).done_bytes() > 0; }));

  v1::PauseSplitRequest pause;
  pause.set_operation(name);
  client.Must(&SplitStub::PauseSplit, pause);
  ASSERT_TRUE(Eventually([&] {
    return MetadataOf(daemon, name).state() == v1::SPLIT_STATE_PAUSED;
  }));
  client.Must(&SplitStub::PauseSplit, pause);
  const v1::SplitMetadata paused = MetadataOf(daemon, name);
  EXPECT_LT(paused.done_bytes(), paused.total_bytes());
  EXPECT_EQ(paused.total_bytes(), 4 * kGiB);
  EXPECT_EQ(paused.throttle().max_pages_per_second(), 50'000);

  v1::UpdateSplitRequest update;
  update.set_operation(name);
  update.mutable_throttle()->set_chunk_bytes(64 * kMiB);
  update.set_etag("old");
  EXPECT_EQ(ReasonOf(client.Call(&SplitStub::UpdateSplit, update).status),
            "ETAG_MISMATCH");
  update.set_etag(paused.etag());
  const auto updated = Unpack<v1::SplitMetadata>(
      client.Must(&SplitStub::UpdateSplit, update).metadata());
  EXPECT_NE(updated.etag(), paused.etag());
  // What was not given stays.
  EXPECT_EQ(updated.throttle().max_pages_per_second(), 50'000);
  EXPECT_EQ(updated.throttle().chunk_bytes(), 64 * kMiB);
  // 0 is given, and lifts the limit.
  update.Clear();
  update.set_operation(name);
  update.mutable_throttle()->set_max_pages_per_second(0);
  const auto unlimited = Unpack<v1::SplitMetadata>(
      client.Must(&SplitStub::UpdateSplit, update).metadata());
  EXPECT_EQ(unlimited.throttle().max_pages_per_second(), 0);
  EXPECT_EQ(unlimited.throttle().chunk_bytes(), 64 * kMiB);
  // Still paused: the etag matched, nothing else changed.
  EXPECT_EQ(updated.done_bytes(), paused.done_bytes());

  v1::ResumeSplitRequest resume;
  resume.set_operation(name);
  client.Must(&SplitStub::ResumeSplit, resume);
  const auto done = client.WaitDone(name);
  EXPECT_FALSE(done.has_error());
  const auto metadata = Unpack<v1::SplitMetadata>(done.metadata());
  EXPECT_EQ(metadata.splits().split_1g_count(), 4);
  EXPECT_EQ(metadata.splits().split_2m_count(), 4 * 512);
  EXPECT_GT(metadata.throttled().rate().seconds() * 1'000'000'000 +
                metadata.throttled().rate().nanos(),
            0);
}

TEST(SplitTest, ARecoveryIsPacedByItsThrottle) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(8 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  guest.WritePages(2048);
  client.WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  v1::RecoverHugePagesRequest request;
  request.set_vm(guest.name());
  request.mutable_ranges()->Add()->set_size_bytes(6 * kMiB);
  request.mutable_throttle()->mutable_min_pause()->set_nanos(20'000'000);
  const auto done = client.WaitDone(
      client.Must(&SplitStub::RecoverHugePages, request).name());
  const auto metadata = Unpack<v1::RecoverMetadata>(done.metadata());
  EXPECT_EQ(metadata.recovered_2m_count(), 3);
  EXPECT_EQ(metadata.throttle().min_pause().nanos(), 20'000'000);
  EXPECT_EQ(metadata.throttle().chunk_bytes(), 2 * kMiB);
  // One pause between each two of three chunks.
  EXPECT_GE(metadata.throttled().pause().nanos(), 40'000'000);
  EXPECT_EQ(guest.Get().mapped_pages().pages_2m_count(), 3);
}

TEST(SplitTest, CancelledSplitKeepsItsWork) {
  Daemon daemon;
  const Guest guest = HugeGuest(daemon, 4);
  const std::string name = guest.StartSplit(Paced(100'000));
  ASSERT_TRUE(Eventually(
      [&] { return guest.Get().mapped_pages().pages_4k_count() >= 512; }));
  Cancel(daemon, name);
  const auto operation = daemon.client().WaitDone(name);
  EXPECT_EQ(operation.error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(FactsOf(operation.error()).reason, "OPERATION_CANCELLED");
  const auto metadata = Unpack<v1::SplitMetadata>(operation.metadata());
  EXPECT_EQ(metadata.state(), v1::SPLIT_STATE_CANCELLED);
  const v1::PageCounts pages = guest.Get().mapped_pages();
  EXPECT_EQ(pages.pages_4k_count(), metadata.splits().split_2m_count() * 512);
  EXPECT_GT(pages.pages_4k_count(), 0);
  EXPECT_LT(pages.pages_4k_count(), 4 * 512 * 512);
  EXPECT_EQ(pages.pages_1g_count(), 4 - metadata.splits().split_1g_count());
  EXPECT_EQ(guest.Audit(), "");

  // A new one finishes the rest, and only that.
  const auto rest =
      daemon.client().WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  const auto response = Unpack<v1::SplitHugePagesResponse>(rest.response());
  EXPECT_EQ(
      response.splits().split_2m_count() + metadata.splits().split_2m_count(),
      4 * 512);
}

TEST(SplitTest, SecondSplitOfAVmIsAbortedUntilTheFirstEnds) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest = HugeGuest(daemon, 1);
  const std::string name = guest.StartSplit(Paced(1));
  v1::SplitHugePagesRequest split;
  split.set_vm(guest.name());
  v1::RecoverHugePagesRequest recover;
  recover.set_vm(guest.name());
  EXPECT_EQ(ReasonOf(client.Call(&SplitStub::SplitHugePages, split).status),
            "SPLIT_RUNNING");
  EXPECT_EQ(ReasonOf(client.Call(&SplitStub::RecoverHugePages, recover).status),
            "SPLIT_RUNNING");
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  EXPECT_EQ(
      ReasonOf(client.Call(&v1::VmService::Stub::DeleteVm, remove).status),
      "OPERATION_RUNNING");
  Cancel(daemon, name);
  client.WaitDone(name);
  daemon.client().WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  client.Must(&v1::VmService::Stub::DeleteVm, remove);
}

TEST(SplitTest, RecoveryPutsHugePagesTogetherAgain) {
  Daemon daemon;
  const Guest guest = HugeGuest(daemon, 2);
  daemon.client().WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  v1::RecoverHugePagesRequest request;
  request.set_vm(guest.name());
  const auto started =
      daemon.client().Must(&SplitStub::RecoverHugePages, request);
  const auto operation = daemon.client().WaitDone(started.name());
  const auto metadata = Unpack<v1::RecoverMetadata>(operation.metadata());
  EXPECT_EQ(metadata.done_bytes(), 2 * kGiB);
  const v1::PageCounts pages = guest.Get().mapped_pages();
  EXPECT_EQ(pages.pages_4k_count(), 0);
  EXPECT_EQ(pages.pages_2m_count(), 0);
  // Recovery puts the huge mappings in place of the small ones: no access to
  // the guest's memory was needed for them to be there.
  EXPECT_EQ(pages.pages_1g_count(), 2);
  EXPECT_EQ(guest.Audit(), "");
}

TEST(SplitTest, OperationsAreListedAndForgotten) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest = HugeGuest(daemon, 1);
  const std::string name = guest.StartSplit(v1::SplitHugePagesRequest());
  client.WaitDone(name);
  google::longrunning::ListOperationsRequest list;
  list.set_page_size(1);
  const auto first = client.Must(&OperationsStub::ListOperations, list);
  ASSERT_EQ(first.operations_size(), 1);
  list.set_page_token(first.next_page_token());
  const auto second = client.Must(&OperationsStub::ListOperations, list);
  ASSERT_EQ(second.operations_size(), 1);
  EXPECT_EQ(second.operations(0).name(), name);
  EXPECT_EQ(second.next_page_token(), "");
  google::longrunning::DeleteOperationRequest remove;
  remove.set_name(name);
  client.Must(&OperationsStub::DeleteOperation, remove);
  EXPECT_EQ(
      ReasonOf(client.Call(&OperationsStub::DeleteOperation, remove).status),
      "OPERATION_NOT_FOUND");
}

}  // namespace
}  // namespace mmud::integration
