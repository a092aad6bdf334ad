#include "server/base/wall_time.h"

#include <functional>
#include <type_traits>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"

namespace mmud {
namespace {

TEST(WallTimeTest, MeasuresNothing) {
  static_assert(!std::is_invocable_v<std::minus<>, WallTime, WallTime>);
  static_assert(!std::is_invocable_v<std::plus<>, WallTime, absl::Duration>);
  static_assert(!std::is_invocable_v<std::less<>, WallTime, WallTime>);
  static_assert(
      !std::is_invocable_v<std::minus<>, WallTime, mmu::MonotonicTime>);
  static_assert(!std::is_constructible_v<mmu::MonotonicTime, WallTime>);
  static_assert(!std::is_constructible_v<WallTime, mmu::MonotonicTime>);
  static_assert(!std::is_constructible_v<WallTime, absl::Time>);
}

TEST(WallTimeTest, ShowsAMonotonicTimeAsFarAwayAsItIs) {
  const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
  const int64_t before = WallTime::Of(now - absl::Hours(1)).unix_nanos();
  const int64_t after = WallTime::Of(now + absl::Hours(1)).unix_nanos();
  // Both times come from the same setting of the wall clock, unless it is set
  // by more than an hour in between.
  EXPECT_GT(after - before, absl::ToInt64Nanoseconds(absl::Hours(1)));
  EXPECT_LT(after - before, absl::ToInt64Nanoseconds(absl::Hours(3)));
}

}  // namespace
}  // namespace mmud
