#include "server/rpc/worker_pool.h"

#include <atomic>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"

namespace mmud {
namespace {

TEST(WorkerPool, StartsAThreadForWorkThatComesWhileAllOthersWait) {
  WorkerPool pool(3);
  EXPECT_EQ(pool.threads(), 0);
  absl::Notification end;
  absl::BlockingCounter started(2);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(pool.Post([&] {
                      started.DecrementCount();
                      end.WaitForNotification();
                    })
                    .ok());
  }
  started.Wait();
  absl::Notification done;
  ASSERT_TRUE(pool.Post([&done] { done.Notify(); }).ok());
  done.WaitForNotification();
  EXPECT_EQ(pool.threads(), 3);
  end.Notify();
}

TEST(WorkerPool, WorkBeyondItsThreadsWaitsItsTurn) {
  std::atomic<int> done{0};
  {
    WorkerPool pool(1);
    absl::Notification end;
    ASSERT_TRUE(pool.Post([&end] { end.WaitForNotification(); }).ok());
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(pool.Post([&done] { ++done; }).ok());
    }
    EXPECT_EQ(pool.threads(), 1);
    EXPECT_EQ(done, 0);
    end.Notify();
  }
  EXPECT_EQ(done, 10);
}

class WorkerPoolWithoutThreads : public ::testing::Test {
 protected:
  ~WorkerPoolWithoutThreads() override { mmu::LimitThreads(-1); }
};

TEST_F(WorkerPoolWithoutThreads, RefusesWorkThatNobodyCouldDo) {
  WorkerPool pool(3);
  mmu::LimitThreads(0);
  bool done = false;
  EXPECT_EQ(mmu::DetailOf(pool.Post([&done] { done = true; })).reason,
            mmu::Reason::kThreadsExhausted);
  EXPECT_EQ(pool.threads(), 0);
  mmu::LimitThreads(-1);
  absl::Notification later;
  EXPECT_TRUE(pool.Post([&later] { later.Notify(); }).ok());
  later.WaitForNotification();
  EXPECT_FALSE(done);
}

TEST_F(WorkerPoolWithoutThreads, ShortWorkWaitsForThoseThatThereAre) {
  std::atomic<int> done{0};
  {
    absl::Notification end;
    WorkerPool pool(3);
    mmu::LimitThreads(1);
    ASSERT_TRUE(pool.Post([&end] { end.WaitForNotification(); }).ok());
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(pool.Post([&done] { ++done; }).ok());
    }
    EXPECT_EQ(pool.threads(), 1);
    end.Notify();
  }
  EXPECT_EQ(done, 10);
}

TEST_F(WorkerPoolWithoutThreads, LongWorkIsRefusedWhileTheOthersAreBusy) {
  absl::Notification end;
  WorkerPool pool(3, WorkerPool::WithoutThread::kRefuse);
  mmu::LimitThreads(1);
  ASSERT_TRUE(pool.Post([&end] { end.WaitForNotification(); }).ok());
  EXPECT_EQ(mmu::DetailOf(pool.Post([] {})).reason,
            mmu::Reason::kThreadsExhausted);
  EXPECT_EQ(pool.threads(), 1);
  end.Notify();
}

}  // namespace
}  // namespace mmud
