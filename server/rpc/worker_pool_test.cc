#include "server/rpc/worker_pool.h"

#include <atomic>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

TEST(WorkerPool, StartsAThreadForWorkThatComesWhileAllOthersWait) {
  WorkerPool pool(3);
  EXPECT_EQ(pool.threads(), 0);
  absl::Notification end;
  absl::BlockingCounter started(2);
  for (int i = 0; i < 2; ++i) {
    pool.Post([&] {
      started.DecrementCount();
      end.WaitForNotification();
    });
  }
  started.Wait();
  absl::Notification done;
  pool.Post([&done] { done.Notify(); });
  done.WaitForNotification();
  EXPECT_EQ(pool.threads(), 3);
  end.Notify();
}

TEST(WorkerPool, WorkBeyondItsThreadsWaitsItsTurn) {
  std::atomic<int> done{0};
  {
    WorkerPool pool(1);
    absl::Notification end;
    pool.Post([&end] { end.WaitForNotification(); });
    for (int i = 0; i < 10; ++i) pool.Post([&done] { ++done; });
    EXPECT_EQ(pool.threads(), 1);
    EXPECT_EQ(done, 0);
    end.Notify();
  }
  EXPECT_EQ(done, 10);
}

}  // namespace
}  // namespace mmud
