#include "server/rpc/watch.h"

#include <atomic>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "server/base/event.h"
#include "server/rpc/timer.h"

namespace mmud {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

TEST(WatchTest, TheFirstErrorCancelsOnceAndIsKept) {
  Timer timer;
  std::atomic<int> looks{0};
  std::atomic<int> cancels{0};
  Event cancelled;
  {
    Watch watch(
        timer, absl::Microseconds(100),
        [&looks] {
          return ++looks < 5 ? absl::OkStatus() : absl::CancelledError("left");
        },
        [&] {
          ++cancels;
          cancelled.Set();
        });
    ASSERT_TRUE(cancelled.WaitFor(kLong));
    EXPECT_EQ(watch.status(), absl::CancelledError("left"));
    // The timer works in order: a check after the error would come before this
    // event.
    Event later;
    timer.At(mmu::MonotonicTime::Now() + absl::Milliseconds(1),
             [&later] { later.Set(); });
    ASSERT_TRUE(later.WaitFor(kLong));
  }
  EXPECT_EQ(looks, 5);
  EXPECT_EQ(cancels, 1);
}

TEST(WatchTest, NobodyLooksOnceItIsOver) {
  Timer timer;
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> looks{0};
    Event looked;
    {
      Watch watch(
          timer, absl::Microseconds(10),
          [&] {
            ++looks;
            looked.Set();
            return absl::OkStatus();
          },
          [] {});
      ASSERT_TRUE(looked.WaitFor(kLong));
      EXPECT_TRUE(watch.status().ok());
    }
    const int before = looks;
    Event later;
    timer.At(mmu::MonotonicTime::Now() + absl::Milliseconds(1),
             [&later] { later.Set(); });
    ASSERT_TRUE(later.WaitFor(kLong));
    EXPECT_EQ(looks, before);
  }
}

}  // namespace
}  // namespace mmud
