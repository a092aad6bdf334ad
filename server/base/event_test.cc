#include "server/base/event.h"

#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(EventTest, IsWaitedForAsLongAsItMay) {
  Event event;
  EXPECT_FALSE(event.WaitFor(absl::ZeroDuration()));
  EXPECT_FALSE(event.WaitFor(absl::Milliseconds(5)));
  event.Set();
  EXPECT_TRUE(event.WaitFor(absl::ZeroDuration()));
  event.Set();
  EXPECT_TRUE(event.WaitFor(absl::InfiniteDuration()));
}

TEST(EventTest, EndsAWaitWithoutEnd) {
  Event event;
  std::thread setter([&] { event.Set(); });
  EXPECT_TRUE(event.WaitFor(absl::InfiniteDuration()));
  setter.join();
}

}  // namespace
}  // namespace mmud
