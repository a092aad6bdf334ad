#include "server/serving_status.h"

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(ServingStatusTest, FollowsTheListenersUntilADrainAndNotAfterIt) {
  std::string told;
  ServingStatus status([&told](bool serving) {
    absl::StrAppend(&told, serving ? "yes " : "no ");
  });
  EXPECT_FALSE(status.SetListeners(""));
  EXPECT_TRUE(status.SetListeners("deaf"));
  EXPECT_FALSE(status.SetListeners("still deaf"));
  EXPECT_TRUE(status.SetListeners(""));
  EXPECT_EQ(told, "no yes ");
  status.BeginDrain();
  EXPECT_FALSE(status.SetListeners("deaf"));
  EXPECT_FALSE(status.SetListeners(""));
  EXPECT_EQ(told, "no yes no ");
}

// A drain begins while the probe is about to say that the listeners answer.
TEST(ServingStatusTest, ADrainIsNotOvertakenByTheProbe) {
  absl::Mutex mu;
  bool serving = true;
  absl::Notification telling;
  absl::Notification draining;
  ServingStatus status([&](bool value) {
    if (value) {
      telling.Notify();
      draining.WaitForNotification();
      // Time in which a drain that does not wait would show.
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    }
    absl::MutexLock lock(&mu);
    serving = value;
  });
  status.SetListeners("deaf");
  std::thread drain([&] {
    telling.WaitForNotification();
    draining.Notify();
    status.BeginDrain();
  });
  status.SetListeners("");
  drain.join();
  absl::MutexLock lock(&mu);
  EXPECT_FALSE(serving);
}

}  // namespace
}  // namespace mmud
