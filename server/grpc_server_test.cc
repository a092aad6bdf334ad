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
#include "google/longrunning/operations.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/guest_memory_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "mmud/v1/workload_service.grpc.pb.h"
#include "server/config.h"
#include "server/housekeeping.h"
#include "server/metrics/rpc_metrics.h"
#include "server/services/daemon_state.h"

namespace mmud {
namespace {

constexpr int64_t kMiB = 1 << 20;

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
    v1::Memslot* slot = request.mutable_vm()->add_memslots();
    slot->set_gpa_bytes(kMiB);
    slot->set_size_bytes(kMiB);
    grpc::ClientContext context;
    v1::CreateVmResponse response;
    EXPECT_TRUE(vms_->CreateVm(&context, request, &response).ok());
    vm_ = response.vm();
  }

  grpc::Status StartLog(absl::Duration ttl = absl::Hours(1)) {
    v1::StartDirtyLogRequest request;
    request.set_vm("vms/a");
    request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(ttl));
    grpc::ClientContext context;
    v1::StartDirtyLogResponse response;
    return logs_->StartDirtyLog(&context, request, &response);
  }

  void Write(uint64_t page) {
    const VmUse vm = state_.vms.Find("vms/a").value();
    mmu::testing::Write(vm->vm(), kMiB + (page << 12), 7);
  }

  // All messages of one GetDirtyLog.
  std::vector<v1::GetDirtyLogResponse> Harvest(
      const v1::GetDirtyLogRequest& request, grpc::Status* status) {
    grpc::ClientContext context;
    const auto reader = logs_->GetDirtyLog(&context, request);
    std::vector<v1::GetDirtyLogResponse> messages;
    v1::GetDirtyLogResponse message;
    while (reader->Read(&message)) messages.push_back(message);
    *status = reader->Finish();
    return messages;
  }

  static v1::GetDirtyLogRequest Seal() {
    v1::GetDirtyLogRequest request;
    request.set_vm("vms/a");
    request.set_mode(v1::GET_DIRTY_LOG_MODE_SEAL);
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
  Harvest(Seal(), &of_stream);
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

TEST_F(GrpcServerTest, SealClearAndSealAgain) {
  ASSERT_TRUE(StartLog().ok());
  Write(3);
  Write(4);
  grpc::Status status;
  const auto messages = Harvest(Seal(), &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].header().epoch(), 1);
  EXPECT_EQ(messages[0].header().dirty_page_count(), 2);
  const v1::DirtyLogChunk& chunk = messages[1].chunk();
  EXPECT_EQ(messages[2].trailer().dirty_page_count(), 2);
  EXPECT_EQ(messages[2].trailer().crc32c(), chunk.crc32c());

  v1::ClearDirtyLogRequest clear;
  clear.set_vm("vms/a");
  clear.set_epoch(1);
  clear.set_start_gpa_bytes(kMiB);
  clear.set_size_bytes(kMiB);
  v1::Extent* extent = clear.mutable_extents()->add_extents();
  extent->set_gpa_bytes(kMiB + (3 << 12));
  extent->set_size_bytes(2 << 12);
  v1::ClearDirtyLogResponse cleared;
  grpc::ClientContext context;
  ASSERT_TRUE(logs_->ClearDirtyLog(&context, clear, &cleared).ok());
  EXPECT_EQ(cleared.cleared_page_count(), 2);
  EXPECT_EQ(cleared.unacked_page_count(), 0);

  Write(4);
  const auto next = Harvest(Seal(), &status);
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(next[0].header().epoch(), 2);
  EXPECT_EQ(next.back().trailer().dirty_page_count(), 1);
}

TEST_F(GrpcServerTest, AnUnclearedEpochIsSentAgainAndThenSuperseded) {
  ASSERT_TRUE(StartLog().ok());
  Write(3);
  grpc::Status status;
  Harvest(Seal(), &status);
  v1::GetDirtyLogRequest again = Seal();
  again.set_epoch(1);
  EXPECT_EQ(Harvest(again, &status).back().trailer().dirty_page_count(), 1);
  const auto merged = Harvest(Seal(), &status);
  EXPECT_EQ(merged[0].header().merged_page_count(), 1);
  Harvest(again, &status);
  EXPECT_EQ(Reason(status), "EPOCH_SUPERSEDED");
  again.set_epoch(9);
  Harvest(again, &status);
  EXPECT_EQ(Reason(status), "EPOCH_UNKNOWN");
}

TEST_F(GrpcServerTest, ALogThatNobodyHarvestsStopsItself) {
  ASSERT_TRUE(StartLog(absl::Minutes(1)).ok());
  HousekeepOnce(state_.vms, mmu::MonotonicTime::Now() + absl::Seconds(30));
  grpc::Status status;
  Harvest(Seal(), &status);
  ASSERT_TRUE(status.ok());
  HousekeepOnce(state_.vms, mmu::MonotonicTime::Now() + absl::Minutes(2));
  Harvest(Seal(), &status);
  EXPECT_EQ(Reason(status), "DIRTY_LOG_OFF");
  EXPECT_TRUE(StartLog().ok());
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
  // A deletion whose caller does not wait for it.
  EXPECT_FALSE(
      state_.vms
          .Delete(
              "vms/a",
              [](const ManagedVm&) -> absl::StatusOr<int64_t> { return 0; },
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
  Harvest(Seal(), &status);
  EXPECT_EQ(Reason(status), "VM_DELETED");
  // A deletion never turns back: this one joins it.
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

// There is a thread for its vCPU, and none for its operation.
TEST_F(GrpcServerTest, AGuestDoesNothingUnlessThereIsAnOperationForIt) {
  const auto workloads = v1::WorkloadService::NewStub(channel_);
  v1::StartWorkloadRequest request;
  request.set_vm("vms/a");
  request.mutable_pattern()->mutable_uniform();
  request.mutable_pattern()->set_write_fraction(1);
  const auto start = [&] {
    grpc::ClientContext context;
    google::longrunning::Operation operation;
    return workloads->StartWorkload(&context, request, &operation);
  };
  VmUse vm = state_.vms.Find("vms/a").value();
  for (int round = 0; round < 50; ++round) {
    mmu::LimitThreads(1);
    const grpc::Status refused = start();
    mmu::LimitThreads(-1);
    ASSERT_EQ(Reason(refused), "THREADS_EXHAUSTED");
    ASSERT_EQ(vm->vm().VcpuStats()[0].accesses, 0u) << round;
  }
  EXPECT_TRUE(state_.operations.List(0, 10).empty());
  const grpc::Status started = start();
  ASSERT_TRUE(started.ok()) << started.error_message();
  while (vm->vm().VcpuStats()[0].accesses == 0) std::this_thread::yield();
  v1::StopWorkloadRequest stop;
  stop.set_vm("vms/a");
  grpc::ClientContext context;
  v1::StopWorkloadResponse stopped;
  EXPECT_TRUE(workloads->StopWorkload(&context, stop, &stopped).ok());
  EXPECT_GT(stopped.statistics().access_count(), 0);
}

TEST_F(GrpcServerTest, WhileDrainingOnlyNewWorkIsRefused) {
  ASSERT_TRUE(StartLog().ok());
  state_.drain.Begin();
  grpc::Status status;
  Harvest(Seal(), &status);
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
