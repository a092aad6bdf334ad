#include "server/rpc/reflection_service.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpc/support/time.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/rpc/call_runtime.h"

namespace mmud {
namespace {

using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

TEST(ReflectionServiceTest, AStreamThatAsksNoMoreMakesRoomForOthers) {
  CallRuntime runtime(
      {.max_reflections = 1, .patience = absl::Milliseconds(200)});
  ReflectionService service({"a.B"}, runtime);
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  ServerReflection::Stub stub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  ServerReflectionRequest request;
  request.set_list_services("");
  ServerReflectionResponse response;
  grpc::ClientContext context;
  const auto stream = stub.ServerReflectionInfo(&context);
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  // The client neither asks nor closes its end.
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  for (int i = 0; i < 3000 && runtime.reflections.Use().used > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  grpc::ClientContext next;
  const auto other = stub.ServerReflectionInfo(&next);
  EXPECT_TRUE(other->WritesDone());
  EXPECT_FALSE(other->Read(&response));
  EXPECT_TRUE(other->Finish().ok());
  server->Shutdown(gpr_inf_past(GPR_CLOCK_MONOTONIC));
}

}  // namespace
}  // namespace mmud
