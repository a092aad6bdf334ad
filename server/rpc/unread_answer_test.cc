// How long calls keep their places, and how a call ends whose answer is not
// read.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpc/support/time.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_interceptor.h"
#include "gtest/gtest.h"
#include "mmud/v1/admin_service.pb.h"
#include "server/base/budget.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/rpc_service.h"

namespace mmud {
namespace {

using grpc::experimental::InterceptionHookPoints;

enum class Kind : uint8_t { kShort, kWait };

// A method that answers at once, registered as a call of one kind or another.
class TestService final : public RpcService {
 public:
  TestService(CallRuntime& runtime, Kind kind)
      : RpcService("mmud.v1.AdminService", runtime) {
    if (kind == Kind::kShort) {
      Short("GetBuildInfo", this, &TestService::Answer);
    } else {
      Wait("GetBuildInfo", this, &TestService::AnswerLater);
    }
    CheckComplete();
  }
  void Fail() { fails_ = true; }

 private:
  absl::Status Fill(v1::GetBuildInfoResponse* response) const {
    if (fails_) return absl::NotFoundError("there is none");
    response->set_version(std::string(1000, 'v'));
    return absl::OkStatus();
  }
  grpc::Status Answer(CallContext*, const v1::GetBuildInfoRequest*,
                      v1::GetBuildInfoResponse* response) {
    const absl::Status status = Fill(response);
    return {static_cast<grpc::StatusCode>(status.code()),
            std::string(status.message())};
  }
  absl::StatusOr<Waiting<v1::GetBuildInfoResponse>> AnswerLater(
      CallContext*, const v1::GetBuildInfoRequest*) {
    Waiting<v1::GetBuildInfoResponse> waiting;
    waiting.subscribe = [](const std::function<void()>& happened) {
      happened();
      return [] {};
    };
    waiting.answer = [this](v1::GetBuildInfoResponse* response) {
      return Fill(response);
    };
    return waiting;
  }

  std::atomic<bool> fails_{false};
};

// Records the number of taken places when a status is about to be sent.
class Watcher final : public grpc::experimental::Interceptor {
 public:
  Watcher(const Budget& budget, std::atomic<int64_t>& used)
      : budget_(budget), used_(used) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* call) override {
    if (call->QueryInterceptionHookPoint(
            InterceptionHookPoints::PRE_SEND_STATUS)) {
      used_ = budget_.Use().used;
    }
    call->Proceed();
  }

 private:
  const Budget& budget_;
  std::atomic<int64_t>& used_;
};

class WatcherFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  WatcherFactory(const Budget& budget, std::atomic<int64_t>& used)
      : budget_(budget), used_(used) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo*) override {
    return new Watcher(budget_, used_);
  }

 private:
  const Budget& budget_;
  std::atomic<int64_t>& used_;
};

class UnreadAnswerTest : public ::testing::TestWithParam<Kind> {
 protected:
  void Start(absl::Duration patience) {
    runtime_ = std::make_unique<CallRuntime>(
        CallRuntime::Limits{.patience = patience});
    service_ = std::make_unique<TestService>(*runtime_, GetParam());
    std::vector<
        std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
        watchers;
    watchers.push_back(std::make_unique<WatcherFactory>(budget(), used_));
    grpc::ServerBuilder builder;
    builder.experimental().SetInterceptorCreators(std::move(watchers));
    builder.RegisterService(service_.get());
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    grpc::ChannelArguments arguments;
    // Receives no more than the call reads.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 5);
    stub_ = std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(),
        arguments));
  }

  // Sends a request and reads nothing yet.
  void Call() {
    stream_ = stub_->PrepareCall(&context_,
                                 "/mmud.v1.AdminService/GetBuildInfo", &queue_);
    stream_->StartCall(nullptr);
    ASSERT_TRUE(Next());
    const grpc::Slice nothing;
    stream_->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(),
                       nullptr);
    ASSERT_TRUE(Next());
  }
  // Waits until the answer or the failure is about to be sent.
  void AwaitAnswer() const {
    while (used_ < 0) absl::SleepFor(absl::Milliseconds(1));
  }
  // Returns whether there was an answer.
  bool Read() {
    grpc::ByteBuffer answer;
    stream_->Read(&answer, nullptr);
    return Next();
  }
  grpc::Status Finish() {
    grpc::Status status;
    stream_->Finish(&status, nullptr);
    EXPECT_TRUE(Next());
    return status;
  }
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  const Budget& budget() const {
    return GetParam() == Kind::kShort ? runtime_->short_calls : runtime_->waits;
  }
  bool AllPlacesComeBack() const {
    for (int i = 0; i < 3000; ++i) {
      if (budget().Use().used == 0) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }

  ~UnreadAnswerTest() override {
    if (server_ != nullptr)
      server_->Shutdown(gpr_inf_past(GPR_CLOCK_MONOTONIC));
    queue_.Shutdown();
    while (Next()) {
    }
  }

  std::unique_ptr<CallRuntime> runtime_;
  std::unique_ptr<TestService> service_;
  std::atomic<int64_t> used_{-1};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

INSTANTIATE_TEST_SUITE_P(All, UnreadAnswerTest,
                         ::testing::Values(Kind::kShort, Kind::kWait));

TEST_P(UnreadAnswerTest, ACallWhoseAnswerNobodyReadsIsCutOff) {
  Start(absl::Milliseconds(10));
  Call();
  AwaitAnswer();
  EXPECT_EQ(used_, 1) << "answered, and not taken";
  EXPECT_TRUE(AllPlacesComeBack());
  EXPECT_FALSE(Read());
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_P(UnreadAnswerTest, AnAnswerThatIsReadLateIsWhole) {
  Start(absl::Hours(1));
  Call();
  AwaitAnswer();
  EXPECT_EQ(budget().Use().used, 1);
  EXPECT_TRUE(Read());
  EXPECT_TRUE(Finish().ok());
  EXPECT_TRUE(AllPlacesComeBack());
}

TEST_P(UnreadAnswerTest, ACallThatFailsGivesItsPlaceBackBeforeItSaysSo) {
  Start(absl::Hours(1));
  service_->Fail();
  Call();
  EXPECT_FALSE(Read());
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(used_, 0);
}

}  // namespace
}  // namespace mmud
