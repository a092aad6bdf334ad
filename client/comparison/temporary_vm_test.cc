#include "client/comparison/temporary_vm.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/test_socket.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::ListOperationsRequest;
using google::longrunning::ListOperationsResponse;
using google::longrunning::Operation;

grpc::Status Refusal(v1::ErrorReason reason) {
  google::rpc::Status status;
  status.set_code(grpc::StatusCode::ALREADY_EXISTS);
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(reason));
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "refused",
                      status.SerializeAsString());
}

// A daemon with at most one VM, which runs an operation and a workload.
class FakeDaemon final : public v1::VmService::Service,
                         public lab::v1::WorkloadService::Service,
                         public google::longrunning::Operations::Service {
 public:
  FakeDaemon() : address_(NewTestAddress()) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::VmService::Service*>(this));
    builder.RegisterService(
        static_cast<lab::v1::WorkloadService::Service*>(this));
    builder.RegisterService(
        static_cast<google::longrunning::Operations::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() override { server_->Shutdown(); }

  std::unique_ptr<Client> Connect() { return *Client::Connect(address_); }

  grpc::Status CreateVm(grpc::ServerContext*,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse*) override {
    if (create_makes_vm) vm = request->vm();
    return create_status;
  }
  grpc::Status GetVm(grpc::ServerContext*, const v1::GetVmRequest*,
                     v1::GetVmResponse* response) override {
    *response->mutable_vm() = vm;
    return grpc::Status::OK;
  }
  grpc::Status DeleteVm(grpc::ServerContext*,
                        const v1::DeleteVmRequest* request,
                        v1::DeleteVmResponse*) override {
    calls.push_back("delete " + request->name() +
                    (request->force() ? " by force" : ""));
    return grpc::Status::OK;
  }
  grpc::Status ListOperations(grpc::ServerContext*,
                              const ListOperationsRequest* request,
                              ListOperationsResponse* response) override {
    if (request->filter() == "vm = \"vms/alpha\" AND done = false") {
      response->add_operations()->set_name("operations/1");
    }
    return grpc::Status::OK;
  }
  grpc::Status CancelOperation(
      grpc::ServerContext*,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty*) override {
    calls.push_back("cancel " + request->name());
    return grpc::Status::OK;
  }
  grpc::Status WaitOperation(
      grpc::ServerContext*,
      const google::longrunning::WaitOperationRequest* request,
      Operation* response) override {
    calls.push_back("wait for " + request->name());
    response->set_name(request->name());
    response->set_done(true);
    return grpc::Status::OK;
  }
  grpc::Status ListWorkloads(
      grpc::ServerContext*, const lab::v1::ListWorkloadsRequest* request,
      lab::v1::ListWorkloadsResponse* response) override {
    lab::v1::Workload& workload = *response->add_workloads();
    workload.set_name(request->vm() + "/workloads/1");
    workload.set_state(lab::v1::WORKLOAD_STATE_RUNNING);
    return grpc::Status::OK;
  }
  grpc::Status StopWorkload(grpc::ServerContext*,
                            const lab::v1::StopWorkloadRequest* request,
                            lab::v1::StopWorkloadResponse*) override {
    calls.push_back("stop " + request->name());
    return grpc::Status::OK;
  }

  v1::Vm vm;
  bool create_makes_vm = true;
  grpc::Status create_status;
  std::vector<std::string> calls;  // those that change something

 private:
  const std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

v1::CreateVmRequest Alpha() {
  v1::CreateVmRequest request;
  request.set_vm_id("alpha");
  return request;
}

const std::vector<std::string>& WholeDeletion() {
  static const auto* const calls = new std::vector<std::string>{
      "cancel operations/1", "wait for operations/1",
      "stop vms/alpha/workloads/1", "delete vms/alpha by force"};
  return *calls;
}

TEST(TemporaryVmTest, WorkOnTheVmEndsBeforeTheVmDoes) {
  FakeDaemon daemon;
  const std::unique_ptr<Client> client = daemon.Connect();
  const auto vm = TemporaryVm::Create(client.get(), Alpha());
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ((*vm)->name(), "vms/alpha");
  EXPECT_TRUE((*vm)->Delete().ok());
  EXPECT_EQ(daemon.calls, WholeDeletion());
  EXPECT_TRUE((*vm)->Delete().ok());
  EXPECT_EQ(daemon.calls, WholeDeletion()) << "it was deleted twice";
}

TEST(TemporaryVmTest, TheVmEndsWithTheObject) {
  FakeDaemon daemon;
  const std::unique_ptr<Client> client = daemon.Connect();
  ASSERT_TRUE(TemporaryVm::Create(client.get(), Alpha()).ok());
  EXPECT_EQ(daemon.calls, WholeDeletion());
}

TEST(TemporaryVmTest, AVmOfACallWithoutAnAnswerIsDeleted) {
  FakeDaemon daemon;
  daemon.create_status = grpc::Status(grpc::StatusCode::INTERNAL, "cut off");
  const std::unique_ptr<Client> client = daemon.Connect();
  EXPECT_EQ(TemporaryVm::Create(client.get(), Alpha()).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(daemon.calls, WholeDeletion());
}

TEST(TemporaryVmTest, AVmOfAnotherProgramIsLeftAlone) {
  FakeDaemon daemon;
  daemon.create_makes_vm = false;
  (*daemon.vm.mutable_labels())["created-by"] = "another program";
  const std::unique_ptr<Client> client = daemon.Connect();
  for (const grpc::Status& status :
       {Refusal(v1::VM_EXISTS),
        grpc::Status(grpc::StatusCode::INTERNAL, "cut off")}) {
    daemon.create_status = status;
    EXPECT_FALSE(TemporaryVm::Create(client.get(), Alpha()).ok());
    EXPECT_TRUE(daemon.calls.empty()) << daemon.calls.front();
  }
}

}  // namespace
}  // namespace mmud::client
