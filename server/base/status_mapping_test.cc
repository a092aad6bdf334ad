#include "server/base/status_mapping.h"

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

template <typename Detail>
bool Find(const google::rpc::Status& status, Detail* detail) {
  for (const auto& any : status.details()) {
    if (any.UnpackTo(detail)) return true;
  }
  return false;
}

TEST(StatusMapping, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(StatusMapping, CarriesReasonDomainErrnoAndFieldOfACoreError) {
  const grpc::Status status = ToGrpcStatus(
      mmu::MakeError(absl::StatusCode::kAlreadyExists,
                     {mmu::Reason::kRegionOverlap, "gpa_bytes", EEXIST},
                     "slot 2 lies over slot 1"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(status.error_message(), "slot 2 lies over slot 1");
  google::rpc::Status rpc;
  ASSERT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.code(), 6);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(Find(rpc, &info));
  EXPECT_EQ(info.reason(), "REGION_OVERLAP");
  EXPECT_EQ(info.domain(), "mmud");
  EXPECT_EQ(info.metadata().at("errno"), "EEXIST");
  EXPECT_EQ(info.metadata().at("field"), "gpa_bytes");
}

TEST(StatusMapping, NamesTheBadFieldOfAnInvalidArgument) {
  const google::rpc::Status rpc = ToRpcStatus(InField(
      InvalidField(mmu::Reason::kUnaligned, "size_bytes", "5 is odd"), "vm."));
  google::rpc::BadRequest bad;
  ASSERT_TRUE(Find(rpc, &bad));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "vm.size_bytes");
  EXPECT_EQ(bad.field_violations(0).description(), "5 is odd");
}

TEST(StatusMapping, NamesTheFieldThatIsAParameterOfMmuCore) {
  const auto of = [](const char* field) {
    const google::rpc::Status rpc = ToRpcStatus(InFields(
        WithResource(
            InvalidField(mmu::Reason::kUnaligned, "first_page", "it is odd"),
            "mmud.v1.Vm", "vms/a"),
        {{"page_count", "pages.size"}, {"first_page", field}}));
    google::rpc::ErrorInfo info;
    EXPECT_TRUE(Find(rpc, &info));
    google::rpc::ResourceInfo resource;
    EXPECT_TRUE(Find(rpc, &resource));
    return rpc.message() + " [" + (*info.mutable_metadata())["field"] + "]";
  };
  EXPECT_EQ(of("pages.start"), "pages.start: it is odd [pages.start]");
  EXPECT_EQ(of("pages.odd"), "it is odd [pages.odd]");
  EXPECT_EQ(of(""), "it is odd []");
  EXPECT_TRUE(InFields(absl::OkStatus(), {{"", "pages.start"}}).ok());
}

TEST(StatusMapping, NamesTheFieldOfAParameterWithinAnother) {
  const auto of = [](const char* parameter) {
    const absl::Status status =
        InFields(InvalidField(mmu::Reason::kUnaligned, parameter, "it is odd"),
                 {{"size", "pages"}, {"gpa", "gpa_bytes"}});
    return std::string(status.message()) + " [" + mmu::DetailOf(status).field +
           "]";
  };
  EXPECT_EQ(of("vm.memslots[1].gpa"),
            "vm.memslots[1].gpa_bytes: it is odd [vm.memslots[1].gpa_bytes]");
  EXPECT_EQ(of("memslot.pgpa"), "it is odd [memslot.pgpa]");
  EXPECT_EQ(of("gpa"), "gpa_bytes: it is odd [gpa_bytes]");
}

TEST(StatusMapping, NamesTheMissingResource) {
  google::rpc::ResourceInfo resource;
  ASSERT_TRUE(Find(ToRpcStatus(VmNotFound("vms/a")), &resource));
  EXPECT_EQ(resource.resource_type(), "mmud.v1.Vm");
  EXPECT_EQ(resource.resource_name(), "vms/a");
}

TEST(StatusMapping, TellsWhenToRetryWhatIsUnavailable) {
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(Find(ToRpcStatus(DrainingError()), &retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
}

TEST(StatusMapping, TellsThePreconditionThatFailed) {
  google::rpc::PreconditionFailure failure;
  ASSERT_TRUE(
      Find(ToRpcStatus(ApiError(absl::StatusCode::kFailedPrecondition,
                                mmu::Reason::kWorkloadRunning, "it runs")),
           &failure));
  EXPECT_EQ(failure.violations(0).type(), "WORKLOAD_RUNNING");
}

TEST(StatusMapping, GivesAReasonToErrorsWithoutOne) {
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(Find(ToRpcStatus(absl::InternalError("x")), &info));
  EXPECT_EQ(info.reason(), "INTERNAL_ERROR");
}

TEST(StatusMapping, HidesAReasonThatTheApiDoesNotHave) {
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(
      Find(ToRpcStatus(mmu::MakeError(absl::StatusCode::kCancelled,
                                      {mmu::Reason::kInterrupted, "", 0},
                                      "somebody else is waiting")),
           &info));
  EXPECT_EQ(info.reason(), "CALL_CANCELLED");
}

TEST(StatusMapping, EscapesBytesThatAreNotText) {
  const google::rpc::Status rpc =
      ToRpcStatus(absl::InternalError("a\xff"
                                      "b"));
  EXPECT_EQ(rpc.message(), "a\\377b");
}

TEST(StatusMapping, CutsOffLongMessages) {
  const google::rpc::Status rpc =
      ToRpcStatus(absl::InternalError(std::string(100'000, 'x')));
  EXPECT_LT(rpc.ByteSizeLong(), 2000u);
}

TEST(Errors, QuoteShortensLongValues) {
  EXPECT_EQ(Quote("a\n"), "\"a\\n\"");
  EXPECT_LT(Quote(std::string(5000, 'y')).size(), 120u);
}

}  // namespace
}  // namespace mmud
