#include "mmu_core/base/thread.h"

#include <cerrno>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

class ThreadTest : public ::testing::Test {
 protected:
  ~ThreadTest() override { LimitThreads(-1); }
};

TEST_F(ThreadTest, RunsItsBody) {
  bool ran = false;
  absl::StatusOr<std::thread> thread = MakeThread([&ran] { ran = true; });
  ASSERT_TRUE(thread.ok()) << thread.status();
  thread->join();
  EXPECT_TRUE(ran);
}

TEST_F(ThreadTest, OneTooManyIsAnErrorAndDoesNotRun) {
  LimitThreads(1);
  int ran = 0;
  absl::StatusOr<std::thread> first = MakeThread([&ran] { ++ran; });
  ASSERT_TRUE(first.ok()) << first.status();
  first->join();
  const absl::Status none = MakeThread([&ran] { ++ran; }).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DetailOf(none).reason, Reason::kThreadsExhausted);
  EXPECT_EQ(DetailOf(none).kvm_errno, EAGAIN);
  EXPECT_EQ(ran, 1);
}

TEST_F(ThreadTest, AProgramThatCannotBeginWithoutOneSaysWhichAndExits) {
  LimitThreads(0);
  EXPECT_EXIT(MakeThreadOrExit("timers", [] {}), ::testing::ExitedWithCode(1),
              "no thread for timers: the host makes no more threads");
}

}  // namespace
}  // namespace mmu
