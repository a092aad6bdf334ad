#include "server/base/budget.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

TEST(Budget, RefusesWhatIsBeyondItAndNamesTheLimit) {
  Budget budget("max_streams", 2, "streams are open", absl::Seconds(3));
  absl::StatusOr<Budget::Place> first = budget.Take();
  absl::StatusOr<Budget::Place> second = budget.Take();
  ASSERT_TRUE(first.ok() && second.ok());
  const absl::Status refused = budget.Take().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(),
            "2 streams are open, as many as this daemon allows "
            "(--max_streams); try again when one has ended");
  EXPECT_EQ(mmu::DetailOf(refused).reason, mmu::Reason::kLimitExceeded);
  EXPECT_EQ(ApiDetailOf(refused).limit, "max_streams");
  EXPECT_EQ(ApiDetailOf(refused).retry_delay, absl::Seconds(3));
  EXPECT_EQ(budget.Use().used, 2);
  EXPECT_EQ(budget.Use().refused, 1);
  first->Release();
  EXPECT_EQ(budget.Use().used, 1);
  EXPECT_TRUE(budget.Take().ok());
}

TEST(Budget, CountsKeysApart) {
  Budget budget("max_streams_per_vm", 1, "streams are open", absl::Seconds(1));
  const absl::StatusOr<Budget::Place> a = budget.Take("vms/a");
  ASSERT_TRUE(a.ok());
  EXPECT_FALSE(budget.Take("vms/a").ok());
  EXPECT_TRUE(budget.Take("vms/b").ok());
}

TEST(Budget, APlaceThatMovesIsGivenBackOnce) {
  Budget budget("max_waits", 8, "waits go on", absl::Seconds(1));
  Budget::Place place = *budget.Take();
  Budget::Place moved = std::move(place);
  EXPECT_EQ(budget.Use().used, 1);
  moved = *budget.Take();
  EXPECT_EQ(budget.Use().used, 1);
  moved.Release();
  moved.Release();
  EXPECT_EQ(budget.Use().used, 0);
}

}  // namespace
}  // namespace mmud
