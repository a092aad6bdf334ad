#include "server/base/request_id_cache.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

constexpr char kId[] = "7f1b0d4e-3c52-4b6e-9f0a-0123456789ab";
constexpr char kOther[] = "7f1b0d4e-3c52-4b6e-9f0a-0123456789ac";

absl::Status Keep() { return absl::OkStatus(); }

// Counts how often it computes.
struct Counter {
  int count = 0;
  absl::StatusOr<std::string> operator()() {
    return "answer" + std::to_string(++count);
  }
};

TEST(RequestId, MustBeAUuidOfVersionFour) {
  EXPECT_TRUE(CheckRequestId(kId).ok());
  EXPECT_TRUE(CheckRequestId("7F1B0D4E-3C52-4B6E-AF0A-0123456789AB").ok());
  for (const char* bad : {"x", "7f1b0d4e-3c52-1b6e-9f0a-0123456789ab",
                          "7f1b0d4e-3c52-4b6e-1f0a-0123456789ab",
                          "7f1b0d4e-3c52-4b6e-9f0a-0123456789ag",
                          "7f1b0d4e03c52-4b6e-9f0a-0123456789ab"}) {
    EXPECT_EQ(mmu::DetailOf(CheckRequestId(bad)).reason,
              mmu::Reason::kInvalidRequestId);
  }
}

TEST(RequestIdCache, ReturnsTheFirstAnswerAgain) {
  RequestIdCache cache;
  Counter counter;
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer1");
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer1");
  EXPECT_EQ(*cache.Run(kOther, "r", Keep, std::ref(counter)), "answer2");
}

TEST(RequestIdCache, WithoutAnIdComputesEachTime) {
  RequestIdCache cache;
  Counter counter;
  EXPECT_EQ(*cache.Run("", "r", Keep, std::ref(counter)), "answer1");
  EXPECT_EQ(*cache.Run("", "r", Keep, std::ref(counter)), "answer2");
  EXPECT_EQ(cache.size(), 0u);
}

TEST(RequestIdCache, RefusesAnIdWithAnotherRequest) {
  RequestIdCache cache;
  Counter counter;
  ASSERT_TRUE(cache.Run(kId, "r", Keep, std::ref(counter)).ok());
  const auto other = cache.Run(kId, "s", Keep, std::ref(counter));
  EXPECT_EQ(mmu::DetailOf(other.status()).reason,
            mmu::Reason::kRequestIdReused);
  EXPECT_EQ(counter.count, 1);
}

TEST(RequestIdCache, TriesAgainAfterAnError) {
  RequestIdCache cache;
  EXPECT_FALSE(cache
                   .Run(kId, "r", Keep,
                        [] {
                          return absl::StatusOr<std::string>(
                              absl::UnavailableError("later"));
                        })
                   .ok());
  Counter counter;
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer1");
}

TEST(RequestIdCache, ForgetsAfterTenMinutes) {
  mmu::MonotonicTime now;
  RequestIdCache::Options options;
  options.now = [&now] { return now; };
  RequestIdCache cache(options);
  Counter counter;
  ASSERT_TRUE(cache.Run(kId, "r", Keep, std::ref(counter)).ok());
  now += absl::Minutes(9);
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer1");
  now += absl::Minutes(2);
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer2");
}

TEST(RequestIdCache, PushesTheOldestAnswerOut) {
  RequestIdCache::Options options;
  options.max_bytes = 1 * RequestIdCache::kBytesPerEntry + 10;
  RequestIdCache cache(options);
  Counter counter;
  ASSERT_TRUE(cache.Run(kId, "r", Keep, std::ref(counter)).ok());
  ASSERT_TRUE(cache.Run(kOther, "r", Keep, std::ref(counter)).ok());
  EXPECT_EQ(cache.size(), 1u);
  EXPECT_EQ(*cache.Run(kOther, "r", Keep, std::ref(counter)), "answer2");
}

TEST(RequestIdCache, LargeRequestsPushNoAnswerOut) {
  RequestIdCache cache;
  Counter counter;
  const std::string bitmap(1 << 20, 'x');
  const auto id = [](int n) {
    return absl::StrFormat("7f1b0d4e-3c52-4b6e-9f0a-%012x", n);
  };
  for (int n = 0; n < 200; ++n) {  // 200 MiB
    ASSERT_TRUE(cache.Run(id(n), bitmap, Keep, std::ref(counter)).ok());
  }
  EXPECT_EQ(*cache.Run(id(0), bitmap, Keep, std::ref(counter)), "answer1");
}

// The number of answers that the API promises to keep.
TEST(RequestIdCache, KeepsAHundredThousandAnswersOfClears) {
  RequestIdCache cache;
  const std::string answer(200, 'x');  // four counts and an MmuCost
  const auto id = [](int n) {
    return absl::StrFormat("7f1b0d4e-3c52-4b6e-9f0a-%012x", n);
  };
  for (int n = 0; n < 100'000; ++n) {
    ASSERT_TRUE(
        cache
            .Run(id(n), "r", Keep,
                 [&answer] { return absl::StatusOr<std::string>(answer); })
            .ok());
  }
  EXPECT_EQ(cache.size(), 100'000u);
}

TEST(RequestIdCache, ASecondCallWaitsForTheFirst) {
  RequestIdCache cache;
  absl::Notification started, finish;
  std::thread first([&] {
    EXPECT_EQ(*cache.Run(kId, "r", Keep,
                         [&] {
                           started.Notify();
                           finish.WaitForNotification();
                           return absl::StatusOr<std::string>("slow");
                         }),
              "slow");
  });
  started.WaitForNotification();
  Counter counter;
  // The second call finishes the first one from within its own wait, which
  // proves that it waits.
  const auto second = cache.Run(
      kId, "r",
      [&] {
        if (!finish.HasBeenNotified()) finish.Notify();
        return absl::OkStatus();
      },
      std::ref(counter));
  EXPECT_EQ(*second, "slow");
  EXPECT_EQ(counter.count, 0);
  first.join();
}

TEST(RequestIdCache, ACallThatWaitedForOneThatFailedComputesItself) {
  RequestIdCache cache;
  absl::Notification started, fail;
  std::thread first([&] {
    const auto answer = cache.Run(kId, "r", Keep, [&] {
      started.Notify();
      fail.WaitForNotification();
      return absl::StatusOr<std::string>(
          absl::DeadlineExceededError("of the first"));
    });
    EXPECT_EQ(answer.status().message(), "of the first");
  });
  started.WaitForNotification();
  Counter counter;
  EXPECT_EQ(*cache.Run(
                kId, "r",
                [&] {
                  if (!fail.HasBeenNotified()) fail.Notify();
                  return absl::OkStatus();
                },
                std::ref(counter)),
            "answer1");
  first.join();
  // The second call's answer is the one that is remembered.
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "answer1");
}

TEST(RequestIdCache, OfThoseThatWaitedOneAtATimeComputes) {
  constexpr int kWaiters = 8;
  RequestIdCache cache;
  absl::Notification started, fail;
  std::thread first([&] {
    EXPECT_FALSE(cache
                     .Run(kId, "r", Keep,
                          [&] {
                            started.Notify();
                            fail.WaitForNotification();
                            return absl::StatusOr<std::string>(
                                absl::CancelledError("left"));
                          })
                     .ok());
  });
  started.WaitForNotification();
  std::atomic<int> waiting{0};
  std::atomic<int> computing{0};
  std::atomic<int> computed{0};
  std::atomic<int> failed{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < kWaiters; ++i) {
    waiters.emplace_back([&] {
      bool counted = false;
      const auto answer = cache.Run(
          kId, "r",
          [&] {
            if (!counted) ++waiting;
            counted = true;
            return absl::OkStatus();
          },
          [&]() -> absl::StatusOr<std::string> {
            EXPECT_EQ(++computing, 1);
            const int turn = ++computed;
            --computing;
            // Half of them fail, too.
            if (turn <= kWaiters / 2) return absl::CancelledError("left");
            return std::to_string(turn);
          });
      if (answer.ok()) {
        EXPECT_EQ(*answer, std::to_string(kWaiters / 2 + 1));
      } else {
        ++failed;
      }
    });
  }
  while (waiting < kWaiters) std::this_thread::yield();
  fail.Notify();
  first.join();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(computed, kWaiters / 2 + 1);
  EXPECT_EQ(failed, kWaiters / 2);
}

// The work of the first call goes on after that call has given up, and at its
// end answers the retry.
TEST(RequestIdCache, ARetryGetsTheAnswerOfWorkThatGoesOn) {
  RequestIdCache cache;
  RequestIdCache::SharedTurn work;
  const auto begin = [&work](RequestIdCache::SharedTurn turn) {
    work = std::move(turn);
    return absl::StatusOr<std::string>(absl::DeadlineExceededError("of then"));
  };
  EXPECT_EQ(cache.RunWithTurn(kId, "r", Keep, begin).status().message(),
            "of then");
  Counter counter;
  EXPECT_EQ(*cache.Run(
                kId, "r",
                [&work] {
                  // The retry waits. Of two answers the first one is kept.
                  if (work != nullptr) {
                    work->Answer("done");
                    work->Answer("done twice");
                  }
                  work = nullptr;
                  return absl::OkStatus();
                },
                std::ref(counter)),
            "done");
  EXPECT_EQ(counter.count, 0);
  // A call after the end gets the answer, too.
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "done");
  EXPECT_EQ(cache.size(), 1u);
}

TEST(RequestIdCache, WorkThatGoesOnAndGivesNoAnswerLeavesTheTurnToTheNext) {
  RequestIdCache cache;
  RequestIdCache::SharedTurn work;
  EXPECT_FALSE(cache
                   .RunWithTurn(kId, "r", Keep,
                                [&work](RequestIdCache::SharedTurn turn) {
                                  work = std::move(turn);
                                  return absl::StatusOr<std::string>(
                                      absl::CancelledError("left"));
                                })
                   .ok());
  Counter counter;
  EXPECT_EQ(*cache.Run(
                kId, "r",
                [&work] {
                  work = nullptr;
                  return absl::OkStatus();
                },
                std::ref(counter)),
            "answer1");
}

TEST(RequestIdCache, ACallThatSawTheEndOfItsWorkHasTheSameAnswer) {
  RequestIdCache cache;
  const auto compute = [](const RequestIdCache::SharedTurn& turn) {
    turn->Answer("done");
    return absl::StatusOr<std::string>("done");
  };
  EXPECT_EQ(*cache.RunWithTurn(kId, "r", Keep, compute), "done");
  Counter counter;
  EXPECT_EQ(*cache.Run(kId, "r", Keep, std::ref(counter)), "done");
  EXPECT_EQ(counter.count, 0);
}

TEST(RequestIdCache, WithoutAnIdThereIsNoTurn) {
  RequestIdCache cache;
  EXPECT_EQ(*cache.RunWithTurn("", "r", Keep,
                               [](const RequestIdCache::SharedTurn& turn) {
                                 EXPECT_EQ(turn, nullptr);
                                 return absl::StatusOr<std::string>("done");
                               }),
            "done");
}

TEST(RequestIdCache, AnIdInCapitalsIsTheSameId) {
  RequestIdCache cache;
  Counter counter;
  ASSERT_TRUE(cache.Run(kId, "r", Keep, std::ref(counter)).ok());
  EXPECT_EQ(
      *cache.Run(absl::AsciiStrToUpper(kId), "r", Keep, std::ref(counter)),
      "answer1");
}

TEST(RequestIdCache, AWaitingCallCanBeCancelled) {
  RequestIdCache cache;
  absl::Notification started, finish;
  std::thread first([&] {
    EXPECT_TRUE(cache
                    .Run(kId, "r", Keep,
                         [&] {
                           started.Notify();
                           finish.WaitForNotification();
                           return absl::StatusOr<std::string>("slow");
                         })
                    .ok());
  });
  started.WaitForNotification();
  Counter counter;
  const auto second = cache.Run(
      kId, "r", [] { return absl::CancelledError("gone"); }, std::ref(counter));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kCancelled);
  finish.Notify();
  first.join();
}

}  // namespace
}  // namespace mmud
