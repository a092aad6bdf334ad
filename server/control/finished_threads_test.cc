#include "server/control/finished_threads.h"

#include <atomic>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(FinishedThreadsTest, AJoinWaitsForAThreadThatHandedItselfOver) {
  FinishedThreads finished;
  absl::Notification made;
  absl::Notification added;
  std::atomic<bool> ended{false};
  std::thread thread;
  thread = std::thread([&] {
    made.WaitForNotification();
    finished.Add(std::move(thread));
    added.Notify();
    ended = true;
  });
  made.Notify();
  added.WaitForNotification();
  finished.Join();
  EXPECT_TRUE(ended);
  EXPECT_FALSE(thread.joinable());
  finished.Join();  // there is none
}

TEST(FinishedThreadsTest, TheEndJoinsWhatNobodyHasJoined) {
  absl::Notification go;
  std::atomic<bool> ended{false};
  {
    FinishedThreads finished;
    finished.Add(std::thread([&] {
      go.WaitForNotification();
      ended = true;
    }));
    go.Notify();
  }
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace mmud
