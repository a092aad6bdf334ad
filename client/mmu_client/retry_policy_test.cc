#include "client/mmu_client/retry_policy.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "google/protobuf/util/time_util.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

google::rpc::Status WithRetryInfo(absl::StatusCode code, int64_t seconds) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(code));
  google::rpc::RetryInfo retry;
  *retry.mutable_retry_delay() =
      google::protobuf::util::TimeUtil::SecondsToDuration(seconds);
  status.add_details()->PackFrom(retry);
  return status;
}

TEST(RetryPolicyTest, ALimitIsTriedAgainIfTheServerSaysWhen) {
  EXPECT_TRUE(IsRetryable(
      FromRpcStatus(WithRetryInfo(absl::StatusCode::kResourceExhausted, 1))));
  // A RetryInfo alone does not make an error retryable: any error may have one.
  EXPECT_FALSE(
      IsRetryable(FromRpcStatus(WithRetryInfo(absl::StatusCode::kAborted, 1))));
}

TEST(RetryPolicyTest, OfTheOthersOnlyUnavailableIsTriedAgain) {
  EXPECT_TRUE(IsRetryable(absl::UnavailableError("")));
  for (const absl::StatusCode code :
       {absl::StatusCode::kOk, absl::StatusCode::kCancelled,
        absl::StatusCode::kUnknown, absl::StatusCode::kInvalidArgument,
        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kNotFound,
        absl::StatusCode::kAborted, absl::StatusCode::kInternal,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kDataLoss}) {
    EXPECT_FALSE(IsRetryable(absl::Status(code, "")))
        << absl::StatusCodeToString(code);
  }
}

TEST(BackoffTest, GrowsExponentiallyWithinItsJitterUpToTheLimit) {
  RetryPolicy policy;
  policy.initial_backoff = absl::Milliseconds(100);
  policy.max_backoff = absl::Milliseconds(400);
  policy.max_attempts = 10;
  Backoff backoff(policy);
  for (const int64_t expected_ms : {100, 200, 400, 400, 400}) {
    const absl::Duration delay = backoff.NextDelay(absl::UnavailableError(""));
    EXPECT_GE(delay, absl::Milliseconds(expected_ms) / 2);
    EXPECT_LE(delay, absl::Milliseconds(expected_ms));
  }
}

TEST(BackoffTest, EndsAfterTheLastAttempt) {
  RetryPolicy policy;
  policy.max_attempts = 3;
  Backoff backoff(policy);
  EXPECT_TRUE(backoff.MayRetry());
  backoff.NextDelay(absl::UnavailableError(""));
  EXPECT_TRUE(backoff.MayRetry());
  backoff.NextDelay(absl::UnavailableError(""));
  EXPECT_FALSE(backoff.MayRetry());
  backoff.Reset();
  EXPECT_TRUE(backoff.MayRetry());
}

TEST(BackoffTest, WaitsAtLeastAsLongAsTheServerAsks) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kUnavailable, absl::StatusCode::kResourceExhausted}) {
    Backoff backoff{RetryPolicy()};
    EXPECT_GE(backoff.NextDelay(FromRpcStatus(WithRetryInfo(code, 7))),
              absl::Seconds(7));
  }
}

}  // namespace
}  // namespace mmud::client
