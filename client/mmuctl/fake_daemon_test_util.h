// A daemon that mmuctl talks to in tests: VMs, workloads, splits, operations.

#ifndef CLIENT_MMUCTL_FAKE_DAEMON_TEST_UTIL_H_
#define CLIENT_MMUCTL_FAKE_DAEMON_TEST_UTIL_H_

#include <signal.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/mmu_client/test_socket.h"
#include "client/mmuctl/run_line_test_util.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::client {

// Names of operations of a FakeDaemon.
inline constexpr char kRecovery[] =
    "operations/1f9619ff-8b86-4d01-b42d-00cf4fc964ff";
inline constexpr char kSplit[] =
    "operations/2f9619ff-8b86-4d01-b42d-00cf4fc964ff";
inline constexpr char kOlderSplit[] =
    "operations/2a9619ff-8b86-4d01-b42d-00cf4fc964ff";

// A running workload of `vm`.
inline lab::v1::Workload WorkloadOf(const std::string& vm) {
  lab::v1::Workload workload;
  workload.set_name(vm + "/workloads/3f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  workload.set_state(lab::v1::WORKLOAD_STATE_RUNNING);
  workload.mutable_start_time()->set_seconds(1'795'000'000);
  workload.mutable_running_time()->set_seconds(90);
  workload.mutable_statistics()->set_access_count(250);
  workload.set_total_access_count(1000);
  return workload;
}

inline grpc::Status EtagMismatch() {
  google::rpc::Status status;
  status.set_code(grpc::StatusCode::ABORTED);
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(v1::ETAG_MISMATCH));
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  return grpc::Status(grpc::StatusCode::ABORTED, "it changed",
                      status.SerializeAsString());
}

// Answers each call at once, and keeps the requests for the test.
class FakeDaemon final : public v1::VmService::Service,
                         public lab::v1::WorkloadService::Service,
                         public v1::SplitService::Service,
                         public google::longrunning::Operations::Service {
 public:
  FakeDaemon() {
    address_ = NewTestAddress();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::VmService::Service*>(this));
    builder.RegisterService(
        static_cast<lab::v1::WorkloadService::Service*>(this));
    builder.RegisterService(static_cast<v1::SplitService::Service*>(this));
    builder.RegisterService(
        static_cast<google::longrunning::Operations::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() override { server_->Shutdown(); }

  grpc::Status CreateVm(grpc::ServerContext*,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse* response) override {
    create = *request;
    *response->mutable_vm() = request->vm();
    response->mutable_vm()->set_name("vms/" + request->vm_id());
    return grpc::Status::OK;
  }

  // Only vms/labelled exists.
  grpc::Status GetVm(grpc::ServerContext*, const v1::GetVmRequest* request,
                     v1::GetVmResponse* response) override {
    if (request->name() == labelled.name()) {
      *response->mutable_vm() = labelled;
      return grpc::Status::OK;
    }
    google::rpc::Status status;
    status.set_code(grpc::StatusCode::NOT_FOUND);
    google::rpc::ErrorInfo info;
    info.set_reason(v1::ErrorReason_Name(v1::VM_NOT_FOUND));
    info.set_domain("mmud");
    status.add_details()->PackFrom(info);
    return grpc::Status(grpc::StatusCode::NOT_FOUND,
                        request->name() + " does not exist",
                        status.SerializeAsString());
  }

  grpc::Status UpdateVm(grpc::ServerContext*,
                        const v1::UpdateVmRequest* request,
                        v1::UpdateVmResponse* response) override {
    if (other_updates > 0) {
      // Another client updates the VM before this request.
      --other_updates;
      labelled.set_etag(labelled.etag() + "+");
      (*labelled.mutable_labels())["other"] += "x";
    }
    if (!request->etag().empty() && request->etag() != labelled.etag()) {
      return EtagMismatch();
    }
    update = *request;
    *response->mutable_vm() = request->vm();
    return grpc::Status::OK;
  }

  grpc::Status ListMemslots(grpc::ServerContext*,
                            const v1::ListMemslotsRequest* request,
                            v1::ListMemslotsResponse* response) override {
    // Two pages of the list, with one slot each.
    response->add_memslots()->set_slot(request->page_token().empty() ? 3 : 7);
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status ListVms(grpc::ServerContext*, const v1::ListVmsRequest* request,
                       v1::ListVmsResponse* response) override {
    // Two pages of the list, with one VM each.
    response->add_vms()->set_name(request->page_token().empty() ? "vms/a"
                                                                : "vms/b");
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status StartWorkload(
      grpc::ServerContext*, const lab::v1::StartWorkloadRequest* request,
      lab::v1::StartWorkloadResponse* response) override {
    start = *request;
    *response->mutable_workload() = WorkloadOf("vms/alpha");
    return grpc::Status::OK;
  }

  // The workload has ended by now.
  grpc::Status GetWorkload(grpc::ServerContext*,
                           const lab::v1::GetWorkloadRequest* request,
                           lab::v1::GetWorkloadResponse* response) override {
    lab::v1::Workload& workload = *response->mutable_workload();
    workload = WorkloadOf("vms/alpha");
    EXPECT_EQ(request->name(), workload.name());
    workload.set_state(failure.code() == 0 ? lab::v1::WORKLOAD_STATE_COMPLETED
                                           : lab::v1::WORKLOAD_STATE_FAILED);
    if (failure.code() != 0) *workload.mutable_error() = failure;
    workload.mutable_end_time()->set_seconds(1'795'000'090);
    return grpc::Status::OK;
  }

  // Without a VM, the list has two pages with one workload each. For a VM, it
  // has that VM's workload; vms/idle has none.
  grpc::Status ListWorkloads(
      grpc::ServerContext*, const lab::v1::ListWorkloadsRequest* request,
      lab::v1::ListWorkloadsResponse* response) override {
    if (!request->vm().empty()) {
      if (request->vm() == "vms/idle") return grpc::Status::OK;
      *response->add_workloads() = WorkloadOf(request->vm());
      return grpc::Status::OK;
    }
    *response->add_workloads() =
        WorkloadOf(request->page_token().empty() ? "vms/a" : "vms/b");
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status StopWorkload(grpc::ServerContext*,
                            const lab::v1::StopWorkloadRequest* request,
                            lab::v1::StopWorkloadResponse* response) override {
    stopped = request->name();
    *response->mutable_workload() = WorkloadOf("vms/alpha");
    response->mutable_workload()->set_state(lab::v1::WORKLOAD_STATE_STOPPED);
    return grpc::Status::OK;
  }

  // kRecovery is a recovery; the other operations are splits.
  grpc::Status GetOperation(
      grpc::ServerContext*,
      const google::longrunning::GetOperationRequest* request,
      google::longrunning::Operation* operation) override {
    operation->set_name(request->name());
    if (request->name() == kRecovery) {
      v1::RecoverMetadata metadata;
      metadata.set_vm("vms/alpha");
      operation->mutable_metadata()->PackFrom(metadata);
    } else {
      v1::SplitMetadata metadata;
      operation->mutable_metadata()->PackFrom(metadata);
    }
    return grpc::Status::OK;
  }

  // The operation is done at once.
  grpc::Status WaitOperation(
      grpc::ServerContext*,
      const google::longrunning::WaitOperationRequest* request,
      google::longrunning::Operation* operation) override {
    sigaction(SIGINT, nullptr, &interrupt_while_watched);
    operation->set_name(request->name());
    operation->set_done(true);
    v1::SplitMetadata metadata;
    operation->mutable_metadata()->PackFrom(metadata);
    operation->mutable_response()->PackFrom(metadata);
    return grpc::Status::OK;
  }

  grpc::Status CancelOperation(
      grpc::ServerContext*,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty*) override {
    ++cancels;
    cancelled = request->name();
    return grpc::Status::OK;
  }

  grpc::Status ListOperations(
      grpc::ServerContext*,
      const google::longrunning::ListOperationsRequest* request,
      google::longrunning::ListOperationsResponse* response) override {
    filter = request->filter();
    v1::RecoverMetadata recovery;
    recovery.set_vm("vms/beta");
    response->add_operations()->set_name(kRecovery);
    response->mutable_operations(0)->mutable_metadata()->PackFrom(recovery);
    v1::SplitMetadata metadata;
    metadata.set_vm("vms/alpha");
    metadata.mutable_start_time()->set_seconds(1'795'000'000);
    metadata.mutable_running_time()->set_seconds(90);
    for (const char* name : {kSplit, kOlderSplit}) {
      google::longrunning::Operation& split = *response->add_operations();
      split.set_name(name);
      split.mutable_metadata()->PackFrom(metadata);
      split.set_done(name == kOlderSplit);
    }
    return grpc::Status::OK;
  }

  grpc::Status UpdateSplit(grpc::ServerContext*,
                           const v1::UpdateSplitRequest* request,
                           google::longrunning::Operation* operation) override {
    if (!request->etag().empty()) return EtagMismatch();
    throttle = request->throttle();
    operation->set_name(request->operation());
    return grpc::Status::OK;
  }

  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", address_});
    return RunLine(std::move(arguments));
  }
  const std::string& address() const { return address_; }

  v1::CreateVmRequest create;
  v1::UpdateVmRequest update;
  v1::Vm labelled;
  lab::v1::StartWorkloadRequest start;
  google::rpc::Status failure;  // the workload's error
  std::string stopped;
  v1::Throttle throttle;
  int other_updates = 0;
  int cancels = 0;
  std::string cancelled;
  std::string filter;
  struct sigaction interrupt_while_watched = {};

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_FAKE_DAEMON_TEST_UTIL_H_
