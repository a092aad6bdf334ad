#include "client/mmu_client/error_info.h"

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

google::rpc::Status OverlapError() {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  status.set_message("slot 1 overlaps slot 0");
  google::rpc::ErrorInfo info;
  info.set_reason("REGION_OVERLAP");
  info.set_domain("mmud");
  (*info.mutable_metadata())["errno"] = "EEXIST";
  status.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("memslot.gpa_bytes");
  violation->set_description("must not lie within another slot");
  status.add_details()->PackFrom(bad);
  google::rpc::ResourceInfo resource;
  resource.set_resource_name("vms/alpha");
  status.add_details()->PackFrom(resource);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  status.add_details()->PackFrom(retry);
  return status;
}

TEST(ErrorInfoTest, EverythingTheDaemonSaidIsThere) {
  const google::rpc::Status rpc_status = OverlapError();
  const absl::Status status = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, rpc_status.message(),
                   rpc_status.SerializeAsString()));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "slot 1 overlaps slot 0 [REGION_OVERLAP; memslot.gpa_bytes: must "
            "not lie within another slot; errno=EEXIST]");
  const ErrorInfo info = ErrorInfoOf(status);
  EXPECT_EQ(info.message, "slot 1 overlaps slot 0");
  EXPECT_EQ(info.reason, "REGION_OVERLAP");
  EXPECT_EQ(info.domain, "mmud");
  EXPECT_EQ(info.metadata,
            (std::map<std::string, std::string>{{"errno", "EEXIST"}}));
  ASSERT_EQ(info.field_violations.size(), 1u);
  EXPECT_EQ(info.field_violations[0].field, "memslot.gpa_bytes");
  EXPECT_EQ(info.field_violations[0].rule, "must not lie within another slot");
  EXPECT_EQ(info.resource_name, "vms/alpha");
  EXPECT_EQ(info.retry_delay, absl::Milliseconds(2500));
}

TEST(ErrorInfoTest, ErrorOfAnOperationReadsTheSame) {
  const absl::Status status = FromRpcStatus(OverlapError());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), v1::REGION_OVERLAP);
}

TEST(ErrorInfoTest, ErrorWithoutDetailsKeepsItsMessage) {
  const absl::Status status = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"));
  EXPECT_EQ(status, [] {
    absl::Status expected = absl::UnavailableError("connection refused");
    google::rpc::Status payload;
    payload.set_code(14);
    payload.set_message("connection refused");
    expected.SetPayload("type.googleapis.com/google.rpc.Status",
                        absl::Cord(payload.SerializeAsString()));
    return expected;
  }());
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNSPECIFIED);
}

TEST(ErrorInfoTest, GarbageInTheDetailsIsIgnored) {
  const absl::Status status = FromGrpcStatus(grpc::Status(
      grpc::StatusCode::INTERNAL, "broken", std::string("\xff\xff\xff", 3)));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "broken");
}

TEST(ErrorInfoTest, OkStaysOk) {
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_TRUE(FromRpcStatus(google::rpc::Status()).ok());
}

TEST(ErrorInfoTest, StatusFromElsewhereHasItsMessageOnly) {
  const ErrorInfo info = ErrorInfoOf(absl::NotFoundError("no such file"));
  EXPECT_EQ(info.message, "no such file");
  EXPECT_EQ(info.reason, "");
}

TEST(ErrorInfoTest, AReasonOfANewerDaemonIsKeptAsItsName) {
  google::rpc::ErrorInfo newer;
  newer.set_reason("VM_IS_ASLEEP");
  google::rpc::Status sent;
  sent.set_code(9);
  sent.add_details()->PackFrom(newer);
  const absl::Status status = FromRpcStatus(sent);
  EXPECT_EQ(ErrorInfoOf(status).reason, "VM_IS_ASLEEP");
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNSPECIFIED);
}

}  // namespace
}  // namespace mmud::client
