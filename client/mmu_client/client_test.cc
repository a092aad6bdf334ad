// How the client makes calls: deadlines, retries, request ids, errors.

#include "client/mmu_client/client.h"

#include <algorithm>
#include <climits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/test_socket.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "server/rpc/grpc_time.h"

namespace mmud::client {
namespace {

class FakeVmService final : public v1::VmService::Service {
 public:
  grpc::Status CreateVm(grpc::ServerContext* context,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse* response) override {
    deadlines.push_back(FromGrpcTime(context->raw_deadline()));
    ids.push_back(request->request_id());
    if (!answers.empty()) {
      const grpc::Status answer = answers.front();
      answers.erase(answers.begin());
      if (!answer.ok()) return answer;
    }
    response->mutable_vm()->set_name("vms/" + request->vm_id());
    return grpc::Status::OK;
  }

  std::vector<grpc::Status> answers;
  std::vector<std::string> ids;
  std::vector<mmu::MonotonicTime> deadlines;
};

class FakeOperations final : public google::longrunning::Operations::Service {
 public:
  grpc::Status WaitOperation(
      grpc::ServerContext*,
      const google::longrunning::WaitOperationRequest* request,
      google::longrunning::Operation* operation) override {
    operation->set_name(request->name());
    if (--calls_until_done > 0) return grpc::Status::OK;
    operation->set_done(true);
    if (fail) {
      operation->mutable_error()->set_code(1);
      operation->mutable_error()->set_message("cancelled on request");
    } else {
      v1::GetVmResponse response;
      response.mutable_vm()->set_name("vms/a");
      operation->mutable_response()->PackFrom(response);
    }
    return grpc::Status::OK;
  }

  int calls_until_done = 3;
  bool fail = false;
};

class FakeWorkloads final : public lab::v1::WorkloadService::Service {
 public:
  grpc::Status GetWorkload(grpc::ServerContext*,
                           const lab::v1::GetWorkloadRequest* request,
                           lab::v1::GetWorkloadResponse* response) override {
    lab::v1::Workload& workload = *response->mutable_workload();
    workload.set_name(request->name());
    workload.set_state(--calls_until_end > 0 ? lab::v1::WORKLOAD_STATE_RUNNING
                                             : end);
    return grpc::Status::OK;
  }

  int calls_until_end = 7;
  lab::v1::WorkloadState end = lab::v1::WORKLOAD_STATE_COMPLETED;
};

class ClientTest : public testing::Test {
 protected:
  ClientTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&vms_);
    builder.RegisterService(&operations_);
    builder.RegisterService(&workloads_);
    server_ = builder.BuildAndStart();
    options_.sleep = [this](absl::Duration delay) { sleeps_.push_back(delay); };
    Connect();
  }
  ~ClientTest() override { server_->Shutdown(); }

  void Connect() {
    client_ = std::make_unique<Client>(
        server_->InProcessChannel(grpc::ChannelArguments()), options_);
  }

  absl::StatusOr<v1::CreateVmResponse> Create() {
    v1::CreateVmRequest request;
    request.set_vm_id("a");
    return client_->vms().CreateVm(request);
  }

  FakeVmService vms_;
  FakeOperations operations_;
  FakeWorkloads workloads_;
  std::unique_ptr<grpc::Server> server_;
  ClientOptions options_;
  std::vector<absl::Duration> sleeps_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, MutationIsRetriedOnUnavailableUnderTheSameRequestId) {
  const grpc::Status unavailable(grpc::StatusCode::UNAVAILABLE, "draining");
  vms_.answers = {unavailable, unavailable};
  const auto response = Create();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->vm().name(), "vms/a");
  ASSERT_EQ(vms_.ids.size(), 3u);
  EXPECT_EQ(vms_.ids[0].size(), 36u);
  EXPECT_EQ(vms_.ids[0], vms_.ids[1]);
  EXPECT_EQ(vms_.ids[0], vms_.ids[2]);
  EXPECT_EQ(sleeps_.size(), 2u);
}

TEST_F(ClientTest, EachMutationHasAnIdOfItsOwn) {
  ASSERT_TRUE(Create().ok());
  ASSERT_TRUE(Create().ok());
  EXPECT_NE(vms_.ids[0], vms_.ids[1]);
}

TEST_F(ClientTest, NothingElseIsRetried) {
  for (const grpc::StatusCode code :
       {grpc::StatusCode::ABORTED, grpc::StatusCode::INTERNAL,
        grpc::StatusCode::RESOURCE_EXHAUSTED,
        grpc::StatusCode::DEADLINE_EXCEEDED}) {
    vms_.ids.clear();
    vms_.answers = {grpc::Status(code, "no")};
    EXPECT_EQ(Create().status().code(), static_cast<absl::StatusCode>(code));
    EXPECT_EQ(vms_.ids.size(), 1u);
  }
}

TEST_F(ClientTest, RetriesEndWithTheLastError) {
  options_.retry.max_attempts = 3;
  Connect();
  vms_.answers.assign(10,
                      grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining"));
  EXPECT_EQ(ErrorInfoOf(Create().status()).message, "draining");
  EXPECT_EQ(vms_.ids.size(), 3u);
}

TEST_F(ClientTest, WaitsAsLongAsTheDaemonAsks) {
  google::rpc::Status status;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(3);
  status.add_details()->PackFrom(retry);
  vms_.answers = {grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining",
                               status.SerializeAsString())};
  ASSERT_TRUE(Create().ok());
  ASSERT_EQ(sleeps_.size(), 1u);
  EXPECT_GE(sleeps_[0], absl::Seconds(3));
}

TEST_F(ClientTest, WaitsForAPlaceWhereALimitIsReached) {
  google::rpc::Status status;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(3);
  status.add_details()->PackFrom(retry);
  const grpc::Status full(grpc::StatusCode::RESOURCE_EXHAUSTED, "full",
                          status.SerializeAsString());
  vms_.answers = {full, full};
  ASSERT_TRUE(Create().ok());
  ASSERT_EQ(vms_.ids.size(), 3u);
  EXPECT_EQ(vms_.ids[0], vms_.ids[2]);
  ASSERT_EQ(sleeps_.size(), 2u);
  EXPECT_GE(sleeps_[0], absl::Seconds(3));
  EXPECT_GE(sleeps_[1], absl::Seconds(3));
}

TEST_F(ClientTest, DoesNotWaitPastTheDeadline) {
  google::rpc::Status status;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(100'000);
  status.add_details()->PackFrom(retry);
  for (const grpc::StatusCode code :
       {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    vms_.answers = {grpc::Status(code, "later", status.SerializeAsString())};
    EXPECT_EQ(Create().status().code(), static_cast<absl::StatusCode>(code));
    EXPECT_TRUE(sleeps_.empty());
  }
}

TEST_F(ClientTest, EveryCallHasADeadlineThatCanBeChanged) {
  ASSERT_TRUE(Create().ok());
  EXPECT_LT(vms_.deadlines[0], mmu::MonotonicTime::Now() + absl::Minutes(6));
  options_.all_deadlines = absl::Hours(3);
  Connect();
  ASSERT_TRUE(Create().ok());
  EXPECT_GT(vms_.deadlines[1], mmu::MonotonicTime::Now() + absl::Hours(2));
  EXPECT_LT(vms_.deadlines[1], mmu::MonotonicTime::Now() + absl::Hours(4));
}

TEST_F(ClientTest, AwaitReportsEveryStateAndReturnsTheResult) {
  int updates = 0;
  const auto operation = client_->operations().Await(
      "operations/1", absl::Milliseconds(1), [&](const auto& state) {
        ++updates;
        EXPECT_EQ(state.name(), "operations/1");
        return absl::OkStatus();
      });
  ASSERT_TRUE(operation.ok()) << operation.status();
  EXPECT_EQ(updates, 3);
  const auto response = OperationResponse<v1::GetVmResponse>(*operation);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->vm().name(), "vms/a");
  EXPECT_TRUE(absl::IsInternal(
      OperationResponse<v1::CreateVmResponse>(*operation).status()));
}

TEST_F(ClientTest, FailedOperationHasItsErrorAsResult) {
  operations_.calls_until_done = 1;
  operations_.fail = true;
  const auto operation =
      client_->operations().Wait("operations/1", absl::Seconds(1));
  ASSERT_TRUE(operation.ok());
  const auto response = OperationResponse<v1::GetVmResponse>(*operation);
  EXPECT_TRUE(absl::IsCancelled(response.status()));
  EXPECT_EQ(ErrorInfoOf(response.status()).message, "cancelled on request");
}

TEST_F(ClientTest, AwaitStopsWhenTheObserverSaysSo) {
  const auto operation = client_->operations().Await(
      "operations/1", absl::Milliseconds(1),
      [](const auto&) { return absl::CancelledError("enough"); });
  EXPECT_EQ(operation.status(), absl::CancelledError("enough"));
}

TEST_F(ClientTest, AwaitEndsAtItsLimitAndTheOperationGoesOn) {
  operations_.calls_until_done = INT_MAX;
  const auto operation = client_->operations().Await(
      "operations/1", absl::Hours(1),
      [](const auto&) { return absl::OkStatus(); }, absl::Milliseconds(2));
  EXPECT_EQ(operation.status(),
            absl::DeadlineExceededError(
                "operations/1 is not done after 2ms; it continues"));
}

TEST_F(ClientTest, AwaitEndLooksLessOftenTheLongerAWorkloadRuns) {
  int updates = 0;
  const auto workload = client_->workloads().AwaitEnd(
      "vms/a/workloads/1", [&](const lab::v1::Workload& state) {
        ++updates;
        EXPECT_EQ(state.name(), "vms/a/workloads/1");
        return absl::OkStatus();
      });
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_EQ(workload->state(), lab::v1::WORKLOAD_STATE_COMPLETED);
  EXPECT_EQ(updates, 7);
  const std::vector<absl::Duration> expected = {
      absl::Milliseconds(50),  absl::Milliseconds(100),
      absl::Milliseconds(200), absl::Milliseconds(400),
      absl::Milliseconds(500), absl::Milliseconds(500)};
  EXPECT_EQ(sleeps_, expected);
}

TEST_F(ClientTest, AwaitEndReturnsAFailureAsAnEnd) {
  workloads_.calls_until_end = 1;
  workloads_.end = lab::v1::WORKLOAD_STATE_FAILED;
  const auto workload = client_->workloads().AwaitEnd(
      "vms/a/workloads/1", [](const auto&) { return absl::OkStatus(); });
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_EQ(workload->state(), lab::v1::WORKLOAD_STATE_FAILED);
}

TEST_F(ClientTest, AwaitEndStopsWhenTheObserverSaysSoOrAtItsLimit) {
  workloads_.calls_until_end = INT_MAX;
  EXPECT_EQ(
      client_->workloads()
          .AwaitEnd("vms/a/workloads/1",
                    [](const auto&) { return absl::CancelledError("enough"); })
          .status(),
      absl::CancelledError("enough"));
  EXPECT_EQ(
      client_->workloads()
          .AwaitEnd(
              "vms/a/workloads/1", [](const auto&) { return absl::OkStatus(); },
              absl::Milliseconds(2))
          .status(),
      absl::DeadlineExceededError(
          "vms/a/workloads/1 has not ended after 2ms; it continues"));
  for (const absl::Duration sleep : sleeps_) {
    EXPECT_LE(sleep, absl::Milliseconds(2)) << "past the limit";
  }
}

TEST(ClientConnectTest, DaemonThatIsNotThereIsUnavailable) {
  ClientOptions options;
  options.retry.max_attempts = 1;
  const auto client = Client::Connect(NewTestAddress(), options);
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(absl::IsUnavailable((*client)->vms().ListVms({}).status()));
}

// Returns how long a call takes whose daemon starts after the call began.
absl::Duration TimeToReachALateDaemon() {
  const std::string address = NewTestAddress();
  ClientOptions options;
  options.retry.max_attempts = 1'000;
  options.retry.max_backoff = absl::Milliseconds(100);
  const auto client = Client::Connect(address, options);
  EXPECT_TRUE(client.ok());
  FakeVmService vms;
  std::unique_ptr<grpc::Server> server;
  std::thread starter([&] {
    // Start the server only after an attempt has certainly failed: this client
    // makes that attempt.
    ClientOptions once;
    once.retry.max_attempts = 1;
    const auto other = Client::Connect(address, once);
    EXPECT_TRUE(absl::IsUnavailable((*other)->vms().ListVms({}).status()));
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&vms);
    server = builder.BuildAndStart();
  });
  v1::CreateVmRequest request;
  request.set_vm_id("a");
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const auto response = (*client)->vms().CreateVm(request);
  const absl::Duration time = mmu::MonotonicTime::Now() - start;
  starter.join();
  EXPECT_TRUE(response.ok()) << response.status();
  server->Shutdown();
  return time;
}

TEST(ClientConnectTest, CallReachesADaemonThatStartsAfterIt) {
  // gRPC checks an idle connection every 5 s, never earlier. A busy machine
  // makes some tries slow, but not all.
  absl::Duration least = absl::InfiniteDuration();
  for (int tries = 0; tries < 5 && least >= absl::Seconds(4); ++tries) {
    least = std::min(least, TimeToReachALateDaemon());
  }
  EXPECT_LT(least, absl::Seconds(4));
}

TEST(ClientConnectTest, BadAddressIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Connect("nowhere").status()));
}

}  // namespace
}  // namespace mmud::client
