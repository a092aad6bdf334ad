// The end of a conversation whose peer sends nothing.

#include "server/rpc/bidi_call.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/support/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/base/errors.h"
#include "server/rpc/call_context.h"
#include "server/rpc/call_runtime.h"
#include "server/rpc/stream_call.h"

namespace mmud {
namespace {

// A conversation about the VM "vms/a" that answers each message with one
// message.
class Echo final : public ByteConversation {
 public:
  explicit Echo(TakeStreamPlace take) : take_(std::move(take)) {}
  absl::Status Take(const grpc::ByteBuffer& message) override {
    answer_ = message;
    has_answer_ = true;
    return take_("vms/a");
  }
  absl::StatusOr<bool> Next(grpc::ByteBuffer* answer) override {
    if (!has_answer_) return false;
    has_answer_ = false;
    *answer = answer_;
    return true;
  }

 private:
  const TakeStreamPlace take_;
  grpc::ByteBuffer answer_;
  bool has_answer_ = false;
};

class EchoService final : public grpc::CallbackGenericService {
 public:
  explicit EchoService(CallRuntime& runtime) : runtime_(runtime) {}
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return StartBidiCall(runtime_, function_, context);
  }

 private:
  CallRuntime& runtime_;
  const BidiFunction function_ = [](CallContext*, TakeStreamPlace take) {
    return std::make_unique<Echo>(std::move(take));
  };
};

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  rpc.ParseFromString(status.error_details());
  for (const auto& detail : rpc.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

class BidiCallTest : public ::testing::Test {
 protected:
  void Open(absl::Duration patience) {
    runtime_ = std::make_unique<CallRuntime>(
        CallRuntime::Limits{.first_message_patience = patience});
    service_ = std::make_unique<EchoService>(*runtime_);
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(service_.get());
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = std::make_unique<grpc::GenericStub>(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
    stream_ = stub_->PrepareCall(&context_, "/test/Echo", &queue_);
    stream_->StartCall(nullptr);
    ASSERT_TRUE(Next());
    while (runtime_->streams.Use().used == 0) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  ~BidiCallTest() override {
    if (server_ != nullptr) {
      server_->Shutdown(gpr_inf_past(GPR_CLOCK_MONOTONIC));
    }
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }
  void Write() {
    const grpc::Slice text("hello");
    stream_->Write(grpc::ByteBuffer(&text, 1), nullptr);
    ASSERT_TRUE(Next());
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

  std::unique_ptr<CallRuntime> runtime_;
  std::unique_ptr<EchoService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

TEST_F(BidiCallTest, APeerThatSaysNothingLosesItsPlace) {
  Open(absl::Milliseconds(50));
  const grpc::Status status = Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonOf(status), "CALL_CANCELLED");
  EXPECT_EQ(runtime_->streams.Use().used, 0);
}

TEST_F(BidiCallTest, AfterItsFirstMessageItMayBeSilent) {
  Open(absl::Seconds(2));
  Write();
  ASSERT_TRUE(Read());
  EXPECT_EQ(runtime_->streams_per_vm.Use().used, 1);
  absl::SleepFor(absl::Milliseconds(2500));
  Write();
  EXPECT_TRUE(Read());
  stream_->WritesDone(nullptr);
  ASSERT_TRUE(Next());
  EXPECT_TRUE(Finish().ok());
}

TEST_F(BidiCallTest, AnEndOfAllStreamsEndsOneThatSaidNothing) {
  Open(CallRuntime::kFirstMessagePatience);
  runtime_->open_streams.EndAll(DrainingError());
  const grpc::Status status = Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "DRAINING");
}

TEST_F(BidiCallTest, ItIsOneOfItsVmsOnceThatIsKnown) {
  Open(CallRuntime::kFirstMessagePatience);
  Write();
  ASSERT_TRUE(Read());
  runtime_->open_streams.EndOf("", absl::AbortedError("another"));
  runtime_->open_streams.EndOf("vms/a", VmDeleted("vms/a"));
  EXPECT_EQ(ReasonOf(Finish()), "VM_DELETED");
}

}  // namespace
}  // namespace mmud
