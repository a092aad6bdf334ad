// The adapters over a real gRPC server in this process.

#include "server/grpc_server.h"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "server/config/config.h"
#include "server/control/housekeeping.h"
#include "server/metrics/rpc_metrics.h"
#include "server/services/daemon_state.h"

namespace mmud {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr char kToken[] = "a secret of the test's";

// A directory with a short name: the path of a socket may have 107 bytes.
class SocketDirectory {
 public:
  SocketDirectory() {
    EXPECT_NE(mkdtemp(path_), nullptr) << std::strerror(errno);
  }
  ~SocketDirectory() {
    unlink((std::string(path_) + "/s.lock").c_str());
    rmdir(path_);
  }
  SocketDirectory(const SocketDirectory&) = delete;
  SocketDirectory& operator=(const SocketDirectory&) = delete;

  Config OnSocket() const {
    Config config;
    config.listen = "unix:" + std::string(path_) + "/s";
    return config;
  }

 private:
  char path_[24] = "/tmp/mmud_test_XXXXXX";
};

std::string Reason(const grpc::Status& status) {
  google::rpc::Status rpc;
  rpc.ParseFromString(status.error_details());
  for (const auto& detail : rpc.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

class GrpcServerTest : public ::testing::Test {
 protected:
  GrpcServerTest()
      : state_(directory_.OnSocket()),
        rpcs_(ServiceNames(state_.config)),
        server_(GrpcServer::Start(state_, rpcs_)),
        channel_(grpc::CreateChannel(state_.config.listen,
                                     grpc::InsecureChannelCredentials())),
        vms_(v1::VmService::NewStub(channel_)),
        logs_(v1::DirtyLogService::NewStub(channel_)),
        memory_(v1::GuestMemoryService::NewStub(channel_)) {
    EXPECT_TRUE(server_.ok()) << server_.status();
    v1::CreateVmRequest request;
    request.set_vm_id("a");
    request.mutable_vm()->mutable_tdp();
    v1::Memslot* slot = request.mutable_vm()->add_memslots();
    slot->set_gpa_bytes(kMiB);
    slot->set_size_bytes(kMiB);
    grpc::ClientContext context;
    v1::CreateVmResponse response;
    EXPECT_TRUE(vms_->CreateVm(&context, request, &response).ok());
    vm_ = response.vm();
  }

  // Returns once the log is on, or the error.
  grpc::Status StartLog(absl::Duration ttl = absl::Hours(1)) {
    v1::StartDirtyLogRequest request;
    request.set_vm("vms/a");
    request.set_owner("a test");
    request.set_owner_token(kToken);
    request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(ttl));
    google::longrunning::Operation operation;
    {
      grpc::ClientContext context;
      grpc::Status status = logs_->StartDirtyLog(&context, request, &operation);
      if (!status.ok()) return status;
    }
    google::longrunning::WaitOperationRequest wait;
    wait.set_name(operation.name());
    grpc::ClientContext context;
    return google::longrunning::Operations::NewStub(channel_)->WaitOperation(
        &context, wait, &operation);
  }

  grpc::Status Seal(v1::SealDirtyLogResponse* response) {
    v1::SealDirtyLogRequest request;
    request.set_vm("vms/a");
    request.set_owner_token(kToken);
    grpc::ClientContext context;
    return logs_->SealDirtyLog(&context, request, response);
  }

  void Write(uint64_t page) {
    const VmUse vm = state_.vms.Find("vms/a").value();
    mmu::testing::Write(vm->vm(), kMiB + (page << 12), 7);
  }

  // All messages of one ReadDirtyPages.
  std::vector<v1::ReadDirtyPagesResponse> Read(
      v1::ReadDirtyPagesRequest request, grpc::Status* status) {
    request.set_vm("vms/a");
    grpc::ClientContext context;
    const auto reader = logs_->ReadDirtyPages(&context, request);
    std::vector<v1::ReadDirtyPagesResponse> messages;
    v1::ReadDirtyPagesResponse message;
    while (reader->Read(&message)) messages.push_back(message);
    *status = reader->Finish();
    return messages;
  }

  // The request for the sealed pages.
  static v1::ReadDirtyPagesRequest Of(const v1::SealDirtyLogResponse& sealed) {
    v1::ReadDirtyPagesRequest request;
    request.set_log_id(sealed.log_id());
    request.set_epoch(sealed.epoch());
    return request;
  }

  SocketDirectory directory_;
  DaemonState state_;
  RpcMetrics rpcs_;
  absl::StatusOr<std::unique_ptr<GrpcServer>> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::VmService::Stub> vms_;
  std::unique_ptr<v1::DirtyLogService::Stub> logs_;
  std::unique_ptr<v1::GuestMemoryService::Stub> memory_;
  v1::Vm vm_;
};

TEST_F(GrpcServerTest, AVmIsDescribedWithItsDefaults) {
  EXPECT_EQ(vm_.name(), "vms/a");
  EXPECT_EQ(vm_.vcpu_count(), 1);
  EXPECT_EQ(vm_.tdp().entry_format(), v1::ENTRY_FORMAT_EPT);
  EXPECT_EQ(vm_.memslots(0).name(), "vms/a/memslots/0");
  EXPECT_EQ(vm_.memslots(0).dirty_log().state(), v1::DIRTY_LOG_STATE_OFF);
  EXPECT_EQ(vm_.memory_size_bytes(), kMiB);
}

TEST_F(GrpcServerTest, WithoutAnotherThreadCallsAreRefusedAndItGoesOn) {
  v1::GetVmRequest request;
  request.set_name("vms/a");
  const auto get = [&] {
    grpc::ClientContext context;
    v1::GetVmResponse response;
    return vms_->GetVm(&context, request, &response);
  };
  mmu::LimitThreads(0);
  const grpc::Status of_call = get();
  grpc::Status of_stream;
  Read(v1::ReadDirtyPagesRequest(), &of_stream);
  mmu::LimitThreads(-1);
  for (const grpc::Status& status : {of_call, of_stream}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(Reason(status), "THREADS_EXHAUSTED");
  }
  EXPECT_TRUE(get().ok());
}

TEST_F(GrpcServerTest, ASecondServerOnTheSocketIsRefused) {
  DaemonState other(state_.config);
  RpcMetrics rpcs(ServiceNames(other.config));
  EXPECT_EQ(GrpcServer::Start(other, rpcs).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, SealClearAcknowledgeAndSealAgain) {
  ASSERT_TRUE(StartLog().ok());
  Write(3);
  Write(4);
  v1::SealDirtyLogResponse sealed;
  ASSERT_TRUE(Seal(&sealed).ok());
  EXPECT_EQ(sealed.epoch(), 1);
  EXPECT_EQ(sealed.slots(0).fresh_page_count(), 2);
  grpc::Status status;
  const auto messages = Read(Of(sealed), &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].header().epoch(), 1);
  EXPECT_EQ(messages[0].header().coverage(0).size_bytes(), kMiB);
  const v1::DirtyLogChunk& chunk = messages[1].chunk();
  EXPECT_EQ(messages[2].trailer().dirty_page_count(), 2);
  EXPECT_EQ(messages[2].trailer().crc32c(), chunk.crc32c());

  v1::ClearDirtyLogRequest clear;
  clear.set_vm("vms/a");
  clear.set_owner_token(kToken);
  clear.set_epoch(1);
  v1::SlotPages* pages = clear.mutable_pages();
  pages->set_start_gpa_bytes(kMiB);
  pages->set_size_bytes(kMiB);
  v1::Extent* extent = pages->mutable_extents()->add_extents();
  extent->set_gpa_bytes(kMiB + (3 << 12));
  extent->set_size_bytes(2 << 12);
  v1::ClearDirtyLogResponse cleared;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(logs_->ClearDirtyLog(&context, clear, &cleared).ok());
  }
  EXPECT_EQ(cleared.cleared_page_count(), 2);
  EXPECT_EQ(cleared.still_sealed_page_count(), 0);

  Write(4);
  v1::AcknowledgePagesRequest acknowledge;
  acknowledge.set_vm("vms/a");
  acknowledge.set_owner_token(kToken);
  acknowledge.set_epoch(1);
  v1::AcknowledgePagesResponse acknowledged;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(
        logs_->AcknowledgePages(&context, acknowledge, &acknowledged).ok());
  }
  EXPECT_EQ(acknowledged.acknowledged_page_count(), 2);
  EXPECT_EQ(acknowledged.still_in_flight_page_count(), 0);
  ASSERT_TRUE(Seal(&sealed).ok());
  EXPECT_EQ(sealed.epoch(), 2);
  EXPECT_EQ(sealed.slots(0).fresh_page_count(), 1);
}

TEST_F(GrpcServerTest, AnUnclearedEpochIsSentAgainAndThenSuperseded) {
  ASSERT_TRUE(StartLog().ok());
  Write(3);
  v1::SealDirtyLogResponse first;
  ASSERT_TRUE(Seal(&first).ok());
  grpc::Status status;
  v1::ReadDirtyPagesRequest again = Of(first);
  EXPECT_EQ(Read(again, &status).back().trailer().dirty_page_count(), 1);
  v1::SealDirtyLogResponse second;
  ASSERT_TRUE(Seal(&second).ok());
  EXPECT_EQ(second.slots(0).merged_page_count(), 1);
  Read(again, &status);
  EXPECT_EQ(Reason(status), "EPOCH_SUPERSEDED");
  again.set_epoch(9);
  Read(again, &status);
  EXPECT_EQ(Reason(status), "EPOCH_UNKNOWN");
  again.set_log_id(std::string(32, 'a'));
  Read(again, &status);
  EXPECT_EQ(Reason(status), "LOG_CHANGED");
}

TEST_F(GrpcServerTest, ALogWhoseOnlySlotIsGoneTellsAStrangeLogOrEpoch) {
  ASSERT_TRUE(StartLog().ok());
  v1::SealDirtyLogResponse sealed;
  ASSERT_TRUE(Seal(&sealed).ok());
  {
    v1::DeleteMemslotRequest request;
    request.set_name("vms/a/memslots/0");
    request.set_discard_undelivered(true);
    v1::DeleteMemslotResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(vms_->DeleteMemslot(&context, request, &response).ok());
  }
  // The reasons of ReadDirtyPages, and of ReadPages of the pages in flight.
  const auto reasons = [this](const std::string& log_id, int64_t epoch) {
    v1::ReadDirtyPagesRequest dirty;
    dirty.set_log_id(log_id);
    dirty.set_epoch(epoch);
    grpc::Status status;
    Read(dirty, &status);
    v1::ReadPagesRequest pages;
    pages.set_vm("vms/a");
    pages.mutable_in_flight()->set_log_id(log_id);
    pages.mutable_in_flight()->set_epoch(epoch);
    grpc::ClientContext context;
    const auto reader = memory_->ReadPages(&context, pages);
    v1::ReadPagesResponse message;
    while (reader->Read(&message)) {
    }
    return std::vector<std::string>{Reason(status), Reason(reader->Finish())};
  };
  using Reasons = std::vector<std::string>;
  const std::string other = "00000000000000000000000000000001";
  EXPECT_EQ(reasons(sealed.log_id(), 1), Reasons({"", ""}));
  EXPECT_EQ(reasons(sealed.log_id(), 77),
            Reasons({"EPOCH_UNKNOWN", "EPOCH_UNKNOWN"}));
  EXPECT_EQ(reasons(sealed.log_id(), -1),
            Reasons({"EPOCH_UNKNOWN", "EPOCH_UNKNOWN"}));
  EXPECT_EQ(reasons(other, 77), Reasons({"LOG_CHANGED", "LOG_CHANGED"}));
  ASSERT_TRUE(Seal(&sealed).ok());
  EXPECT_EQ(reasons(sealed.log_id(), 1), Reasons({"EPOCH_SUPERSEDED", ""}));
}

TEST_F(GrpcServerTest, ALogWhoseOwnerMakesNoCallStopsItself) {
  ASSERT_TRUE(StartLog(absl::Minutes(1)).ok());
  Write(3);
  HousekeepOnce(state_.vms, state_.abandoned_logs,
                mmu::MonotonicTime::Now() + absl::Seconds(30));
  v1::SealDirtyLogResponse sealed;
  ASSERT_TRUE(Seal(&sealed).ok());
  HousekeepOnce(state_.vms, state_.abandoned_logs,
                mmu::MonotonicTime::Now() + absl::Minutes(2));
  EXPECT_EQ(Reason(Seal(&sealed)), "DIRTY_LOG_OFF");
  EXPECT_EQ(state_.abandoned_logs.logs(), 1u);
  EXPECT_EQ(state_.abandoned_logs.discarded_pages(), 1u);
  EXPECT_TRUE(StartLog().ok());
}

// One stream does the work of four calls.
TEST_F(GrpcServerTest, AHarvestSealsClearsAndAcknowledges) {
  ASSERT_TRUE(StartLog().ok());
  for (uint64_t page = 0; page < 256; ++page) Write(page);
  grpc::ClientContext context;
  const auto stream = logs_->HarvestDirtyLog(&context);
  v1::HarvestDirtyLogRequest open;
  open.mutable_open()->set_vm("vms/a");
  open.mutable_open()->set_owner_token(kToken);
  open.mutable_open()->set_window_chunk_count(1);
  ASSERT_TRUE(stream->Write(open));
  v1::HarvestDirtyLogResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.opened().vm(), "vms/a");
  v1::HarvestDirtyLogRequest seal;
  seal.mutable_seal();
  ASSERT_TRUE(stream->Write(seal));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.sealed().epoch(), 1);
  ASSERT_TRUE(stream->Read(&answer));
  ASSERT_EQ(answer.chunk().number(), 1);
  ASSERT_TRUE(stream->Read(&answer)) << "the window is full, and all is sent";
  EXPECT_EQ(answer.trailer().dirty_page_count(), 256);
  v1::HarvestDirtyLogRequest clear;
  clear.mutable_clear()->set_number(1);
  ASSERT_TRUE(stream->Write(clear));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.cleared().result().cleared_page_count(), 256);
  EXPECT_EQ(answer.cleared().result().already_clean_page_count(), 0);
  v1::HarvestDirtyLogRequest acknowledge;
  acknowledge.mutable_acknowledge()->set_epoch(1);
  ASSERT_TRUE(stream->Write(acknowledge));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.acknowledged().acknowledged_page_count(), 256);
  // Clears each chunk once.
  ASSERT_TRUE(stream->Write(clear));
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(Reason(stream->Finish()), "EPOCH_MISMATCH");
}

// The daemon reads from the stream again only when it has sent all that it may
// send. So a chunk that is not held back comes before the answer to the clear.
TEST_F(GrpcServerTest, AHarvestHoldsBackChunksThatAreNotCleared) {
  constexpr uint64_t kPages = 1024;
  constexpr int64_t kChunks = 4;  // of 160 extents at most
  v1::SetMemslotRequest set;
  set.set_vm("vms/a");
  set.mutable_memslot()->set_slot(1);
  set.mutable_memslot()->set_gpa_bytes(2 * kMiB);
  set.mutable_memslot()->set_size_bytes(int64_t{kPages} << 12);
  v1::SetMemslotResponse slot;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(vms_->SetMemslot(&context, set, &slot).ok());
  }
  ASSERT_TRUE(StartLog().ok());
  for (uint64_t page = 0; page < kPages; page += 2) Write(256 + page);
  grpc::ClientContext context;
  const auto stream = logs_->HarvestDirtyLog(&context);
  v1::HarvestDirtyLogRequest open;
  open.mutable_open()->set_vm("vms/a");
  open.mutable_open()->set_owner_token(kToken);
  open.mutable_open()->set_window_chunk_count(1);
  open.mutable_open()->set_max_message_bytes(4096);
  open.mutable_open()->set_encoding(v1::DIRTY_LOG_ENCODING_EXTENTS);
  ASSERT_TRUE(stream->Write(open));
  v1::HarvestDirtyLogRequest seal;
  seal.mutable_seal();
  ASSERT_TRUE(stream->Write(seal));
  v1::HarvestDirtyLogResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_TRUE(answer.has_opened());
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_TRUE(answer.has_sealed());
  for (int64_t number = 1; number <= kChunks; ++number) {
    ASSERT_TRUE(stream->Read(&answer));
    ASSERT_EQ(answer.chunk().number(), number);
    if (number == kChunks) {
      ASSERT_TRUE(stream->Read(&answer));
      ASSERT_EQ(answer.trailer().chunk_count(), kChunks);
    }
    v1::HarvestDirtyLogRequest clear;
    clear.mutable_clear()->set_number(number);
    ASSERT_TRUE(stream->Write(clear));
    ASSERT_TRUE(stream->Read(&answer));
    ASSERT_EQ(answer.cleared().number(), number) << answer.ShortDebugString();
  }
}

// The stream only waits for its client's messages, and holds the VM until it is
// ended.
TEST_F(GrpcServerTest, AHarvestThatWaitsForItsClientEndsWithItsVm) {
  ASSERT_TRUE(StartLog().ok());
  grpc::ClientContext context;
  const auto stream = logs_->HarvestDirtyLog(&context);
  v1::HarvestDirtyLogRequest open;
  open.mutable_open()->set_vm("vms/a");
  open.mutable_open()->set_owner_token(kToken);
  ASSERT_TRUE(stream->Write(open));
  v1::HarvestDirtyLogResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  v1::DeleteVmRequest remove;
  remove.set_name("vms/a");
  remove.set_force(true);
  v1::DeleteVmResponse removed;
  grpc::ClientContext other;
  EXPECT_TRUE(vms_->DeleteVm(&other, remove, &removed).ok());
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(Reason(stream->Finish()), "VM_DELETED");
}

TEST_F(GrpcServerTest, AHarvestBeginsByBeingOpened) {
  ASSERT_TRUE(StartLog().ok());
  const auto reason_of = [this](const v1::HarvestDirtyLogRequest& request) {
    grpc::ClientContext context;
    const auto stream = logs_->HarvestDirtyLog(&context);
    stream->Write(request);
    v1::HarvestDirtyLogResponse answer;
    EXPECT_FALSE(stream->Read(&answer));
    return Reason(stream->Finish());
  };
  v1::HarvestDirtyLogRequest request;
  EXPECT_EQ(reason_of(request), "INVALID_REQUEST");
  request.mutable_seal();
  EXPECT_EQ(reason_of(request), "INVALID_REQUEST");
  request.mutable_open()->set_vm("vms/a");
  EXPECT_EQ(reason_of(request), "INVALID_OWNER_TOKEN");
  request.mutable_open()->set_owner_token("a secret of a stranger");
  EXPECT_EQ(reason_of(request), "LOG_OWNED");
  request.mutable_open()->set_owner_token(kToken);
  request.mutable_open()->set_window_chunk_count(65);
  EXPECT_EQ(reason_of(request), "INVALID_RANGE");
  request.mutable_open()->set_vm("vms/b");
  EXPECT_EQ(reason_of(request), "VM_NOT_FOUND");
}

TEST_F(GrpcServerTest, ReadsWrittenAndZeroPages) {
  Write(1);
  v1::ReadPagesRequest request;
  request.set_vm("vms/a");
  v1::Extent* extent = request.add_extents();
  extent->set_gpa_bytes(kMiB);
  extent->set_size_bytes(3 << 12);
  grpc::ClientContext context;
  const auto reader = memory_->ReadPages(&context, request);
  v1::ReadPagesResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.chunk().data().size(), 4096u);
  EXPECT_EQ(message.chunk().zero_extents_size(), 2);
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.trailer().page_count(), 3);
  EXPECT_EQ(message.trailer().zero_page_count(), 2);
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GrpcServerTest, AVmThatIsBeingDeletedIsSeenAndNotUsed) {
  VmUse call = state_.vms.Find("vms/a").value();
  // The deletion goes on after its caller gives up.
  EXPECT_FALSE(
      state_.vms
          .Delete(
              "vms/a",
              [](const ManagedVm&) -> absl::StatusOr<mmu::UndeliveredCounts> {
                return mmu::UndeliveredCounts();
              },
              [] { return absl::CancelledError("left"); })
          .ok());
  v1::GetVmRequest get;
  get.set_name("vms/a");
  v1::GetVmResponse got;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(vms_->GetVm(&context, get, &got).ok());
    EXPECT_EQ(got.vm().name(), "vms/a");
    EXPECT_EQ(got.vm().state(), v1::VM_STATE_DELETING);
    EXPECT_TRUE(got.vm().has_create_time());
  }
  v1::ListVmsResponse list;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(vms_->ListVms(&context, v1::ListVmsRequest(), &list).ok());
    ASSERT_EQ(list.vms_size(), 1);
    EXPECT_EQ(list.vms(0).DebugString(), got.vm().DebugString());
  }
  EXPECT_EQ(Reason(StartLog()), "VM_DELETED");
  grpc::Status status;
  Read(v1::ReadDirtyPagesRequest(), &status);
  EXPECT_EQ(Reason(status), "VM_DELETED");
  // A deletion cannot be undone: this call joins it.
  call.Release();
  v1::DeleteVmRequest remove;
  remove.set_name("vms/a");
  v1::DeleteVmResponse removed;
  grpc::ClientContext context;
  status = vms_->DeleteVm(&context, remove, &removed);
  EXPECT_TRUE(status.ok() || Reason(status) == "VM_NOT_FOUND");
  grpc::ClientContext again;
  EXPECT_EQ(Reason(vms_->GetVm(&again, get, &got)), "VM_NOT_FOUND");
}

// There is a thread for the guest's vCPU, but none that waits for its end.
TEST_F(GrpcServerTest, AGuestDoesNothingUnlessThereIsAThreadForItsEnd) {
  const auto workloads = lab::v1::WorkloadService::NewStub(channel_);
  lab::v1::StartWorkloadRequest request;
  request.set_vm("vms/a");
  lab::v1::AccessPattern* pattern =
      request.mutable_workload()->mutable_pattern();
  pattern->mutable_uniform();
  pattern->set_write_fraction(1);
  lab::v1::Workload workload;
  const auto start = [&] {
    grpc::ClientContext context;
    lab::v1::StartWorkloadResponse response;
    const grpc::Status status =
        workloads->StartWorkload(&context, request, &response);
    workload = response.workload();
    return status;
  };
  VmUse vm = state_.vms.Find("vms/a").value();
  for (int round = 0; round < 50; ++round) {
    mmu::LimitThreads(1);
    const grpc::Status refused = start();
    mmu::LimitThreads(-1);
    ASSERT_EQ(Reason(refused), "THREADS_EXHAUSTED");
    ASSERT_EQ(vm->vm().VcpuStats()[0].accesses, 0u) << round;
  }
  EXPECT_EQ(vm->workload(), nullptr);
  EXPECT_EQ(state_.workloads.Metrics().failed, 0u);
  const grpc::Status started = start();
  ASSERT_TRUE(started.ok()) << started.error_message();
  while (vm->vm().VcpuStats()[0].accesses == 0) std::this_thread::yield();
  EXPECT_EQ(workload.state(), lab::v1::WORKLOAD_STATE_RUNNING);
  lab::v1::StopWorkloadRequest stop;
  stop.set_name(workload.name());
  grpc::ClientContext context;
  lab::v1::StopWorkloadResponse stopped;
  EXPECT_TRUE(workloads->StopWorkload(&context, stop, &stopped).ok());
  EXPECT_EQ(stopped.workload().state(), lab::v1::WORKLOAD_STATE_STOPPED);
  EXPECT_GT(stopped.workload().statistics().access_count(), 0);
}

TEST_F(GrpcServerTest, WhileDrainingOnlyNewWorkIsRefused) {
  ASSERT_TRUE(StartLog().ok());
  state_.drain.Begin();
  grpc::Status status;
  Read(v1::ReadDirtyPagesRequest(), &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(status), "DRAINING");
  EXPECT_EQ(Reason(StartLog()), "DRAINING");
  v1::GetVmRequest get;
  get.set_name("vms/a");
  grpc::ClientContext context;
  v1::GetVmResponse response;
  EXPECT_TRUE(vms_->GetVm(&context, get, &response).ok());
}

}  // namespace
}  // namespace mmud
