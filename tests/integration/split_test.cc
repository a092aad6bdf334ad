// Splits as long-running operations: progress, pace, pause, cancel, conflicts.

#include <string>
#include <vector>

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
  // Fields that are not given stay.
  EXPECT_EQ(updated.throttle().max_pages_per_second(), 50'000);
  EXPECT_EQ(updated.throttle().chunk_bytes(), 64 * kMiB);
  // An explicit 0 removes the limit.
  update.Clear();
  update.set_operation(name);
  update.mutable_throttle()->set_max_pages_per_second(0);
  const auto unlimited = Unpack<v1::SplitMetadata>(
      client.Must(&SplitStub::UpdateSplit, update).metadata());
  EXPECT_EQ(unlimited.throttle().max_pages_per_second(), 0);
  EXPECT_EQ(unlimited.throttle().chunk_bytes(), 64 * kMiB);
  // The split is still paused: its number of done bytes has not changed.
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
  // Three chunks have two pauses between them.
  EXPECT_GE(metadata.throttled().pause().nanos(), 40'000'000);
  EXPECT_EQ(guest.Get().mapped_pages().pages_2m_count(), 3);
}

TEST(SplitTest, ARecoverysMetadataTellsItsVmItsPaceAndItsProgress) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(8 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  guest.WritePages(2048);
  client.WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  v1::RecoverHugePagesRequest request;
  request.set_vm(guest.name());
  // The first pause outlasts the test.
  request.mutable_throttle()->set_max_pages_per_second(1);
  const std::string name =
      client.Must(&SplitStub::RecoverHugePages, request).name();
  const auto metadata_of = [](const google::longrunning::Operation& of) {
    return Unpack<v1::RecoverMetadata>(of.metadata());
  };
  ASSERT_TRUE(Eventually(
      [&] { return metadata_of(client.GetOperation(name)).done_bytes() > 0; }));

  const google::longrunning::Operation running = client.GetOperation(name);
  EXPECT_FALSE(running.done());
  const v1::RecoverMetadata now = metadata_of(running);
  EXPECT_EQ(now.vm(), guest.name());
  EXPECT_EQ(now.vm_uid(), guest.Get().uid());
  EXPECT_EQ(now.total_bytes(), 8 * kMiB);
  EXPECT_EQ(now.done_bytes(), 2 * kMiB);
  EXPECT_EQ(now.recovered_2m_count(), 1);
  EXPECT_EQ(now.recovered_1g_count(), 0);
  EXPECT_EQ(now.throttle().max_pages_per_second(), 1);
  EXPECT_EQ(now.throttle().chunk_bytes(), 2 * kMiB);
  EXPECT_TRUE(now.has_cost());
  EXPECT_TRUE(now.has_start_time());
  EXPECT_TRUE(now.has_running_time());
  EXPECT_FALSE(now.has_end_time());

  client.Cancel(name);
  const google::longrunning::Operation done = client.WaitDone(name);
  EXPECT_EQ(done.error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(FactsOf(done.error()).reason, "OPERATION_CANCELLED");
  const v1::RecoverMetadata end = metadata_of(done);
  EXPECT_EQ(end.vm_uid(), now.vm_uid());
  EXPECT_EQ(end.done_bytes(), 2 * kMiB);
  EXPECT_EQ(end.recovered_2m_count(), 1);
  EXPECT_TRUE(end.has_end_time());
  EXPECT_GT(end.throttled().rate().seconds() * 1'000'000'000 +
                end.throttled().rate().nanos(),
            0);
  EXPECT_FALSE(end.throttled().has_lock_hold()) << "it is in the cost";
  EXPECT_EQ(guest.Get().mapped_pages().pages_2m_count(), 1);
}

TEST(SplitTest, ARecoveryOfAMemslotThatLogsIsRefusedByTheMemslotsName) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  v1::Memslot second = MakeSlot(8 * kMiB);
  second.set_slot(1);
  second.set_gpa_bytes(kGiB);
  const Guest guest(daemon.client(), "alpha", {MakeSlot(8 * kMiB), second});
  v1::StartDirtyLogRequest log;
  log.add_slots(1);
  guest.StartDirtyLog(log);
  const auto recover = [&](const std::vector<int64_t>& starts) {
    v1::RecoverHugePagesRequest request;
    request.set_vm(guest.name());
    for (const int64_t start : starts) {
      v1::Extent& range = *request.add_ranges();
      range.set_gpa_bytes(start);
      range.set_size_bytes(2 * kMiB);
    }
    return client.Call(&SplitStub::RecoverHugePages, request);
  };
  for (const std::vector<int64_t>& starts :
       std::vector<std::vector<int64_t>>{{}, {kGiB}, {0, kGiB}}) {
    const grpc::Status refused = recover(starts).status;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    const ErrorFacts facts = FactsOf(refused);
    EXPECT_EQ(facts.reason, "DIRTY_LOG_ACTIVE");
    EXPECT_EQ(facts.resource_name, guest.name() + "/memslots/1");
    // The ranges are right; it is the memslot's state that is in the way.
    EXPECT_EQ(facts.field, "");
    EXPECT_EQ(facts.violated_field, "");
    google::rpc::Status status;
    ASSERT_TRUE(status.ParseFromString(refused.error_details()));
    for (const google::protobuf::Any& detail : status.details()) {
      google::rpc::ErrorInfo info;
      if (!detail.UnpackTo(&info)) continue;
      EXPECT_EQ(info.metadata().count("slot"), 0u) << "the resource names it";
    }
  }
  // The other memslot does not log.
  const auto recovered = recover({0});
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.error_message();
  EXPECT_FALSE(client.WaitDone(recovered.response.name()).has_error());
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

  // A new split finishes the rest, and only the rest.
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
  // Recovery itself replaces the small mappings by huge ones. No access to the
  // guest's memory was needed.
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
