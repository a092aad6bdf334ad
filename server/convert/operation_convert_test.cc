#include "server/convert/operation_convert.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/duration.pb.h"
#include "gtest/gtest.h"
#include "server/base/errors.h"
#include "server/control/operation.h"

namespace mmud {
namespace {

google::protobuf::Duration Seconds(int64_t seconds) {
  google::protobuf::Duration duration;
  duration.set_seconds(seconds);
  return duration;
}

OperationView Running() {
  OperationView operation;
  operation.name = "operations/a";
  operation.metadata = Pack(Seconds(7));
  return operation;
}

TEST(OperationConvertTest, OneThatRunsHasOnlyItsMetadata) {
  const google::longrunning::Operation proto = ToProto(Running());
  EXPECT_EQ(proto.name(), "operations/a");
  EXPECT_FALSE(proto.done());
  EXPECT_EQ(proto.result_case(),
            google::longrunning::Operation::RESULT_NOT_SET);
  google::protobuf::Duration metadata;
  ASSERT_TRUE(proto.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.seconds(), 7);
}

TEST(OperationConvertTest, OneThatIsDoneHasItsResponse) {
  OperationView operation = Running();
  operation.done = true;
  operation.response = Pack(Seconds(42));
  const google::longrunning::Operation proto = ToProto(operation);
  EXPECT_TRUE(proto.done());
  google::protobuf::Duration response;
  ASSERT_TRUE(proto.response().UnpackTo(&response));
  EXPECT_EQ(response.seconds(), 42);
}

TEST(OperationConvertTest, OneThatFailedHasItsError) {
  OperationView operation = Running();
  operation.done = true;
  operation.error = DrainingError();
  const google::longrunning::Operation proto = ToProto(operation);
  EXPECT_EQ(proto.result_case(), google::longrunning::Operation::kError);
  EXPECT_EQ(proto.error().code(),
            static_cast<int>(absl::StatusCode::kUnavailable));
}

TEST(OperationConvertTest, AnErrorOfTheStoreStaysOne) {
  const absl::Status error = OperationNotFound("operations/a");
  EXPECT_EQ(ToProto(absl::StatusOr<OperationView>(error)).status(), error);
}

}  // namespace
}  // namespace mmud
