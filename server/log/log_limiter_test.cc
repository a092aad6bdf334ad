#include "server/log/log_limiter.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/fake_clock.h"

namespace mmud {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

class LogLimiterTest : public ::testing::Test {
 protected:
  int Admitted(const std::string& key, int lines) {
    int admitted = 0;
    for (int i = 0; i < lines; ++i) admitted += limiter_.Admit(key) ? 1 : 0;
    return admitted;
  }

  mmu::FakeClock clock_;
  LogLimiter limiter_{{.lines_per_second = 2,
                       .burst = 5,
                       .total_lines_per_second = 10,
                       .total_burst = 20,
                       .max_keys = 3},
                      clock_};
};

TEST_F(LogLimiterTest, ABurstAndThenSoManyASecond) {
  EXPECT_EQ(Admitted("a", 100), 5);
  clock_.Advance(kSecond / 2);
  EXPECT_EQ(Admitted("a", 100), 1);
  clock_.Advance(kSecond * 3600);
  EXPECT_EQ(Admitted("a", 100), 5) << "no more than a burst is saved up";
  EXPECT_EQ(limiter_.dropped(), 300u - 11);
}

TEST_F(LogLimiterTest, OneFloodHidesNothingElse) {
  EXPECT_EQ(Admitted("flood", 1000), 5);
  EXPECT_EQ(Admitted("calm", 1), 1);
}

TEST_F(LogLimiterTest, ManyFloodsAreBoundTogether) {
  LogLimiter limiter({.lines_per_second = 2,
                      .burst = 5,
                      .total_lines_per_second = 10,
                      .total_burst = 20},
                     clock_);
  int admitted = 0;
  for (int key = 0; key < 100; ++key) {
    for (int i = 0; i < 10; ++i) {
      admitted += limiter.Admit(absl::StrCat(key)) ? 1 : 0;
    }
  }
  EXPECT_EQ(admitted, 20);
}

TEST_F(LogLimiterTest,
       KeysBeyondTheLimitShareUntilOthersHaveTheirAllowanceBack) {
  for (const char* key : {"a", "b", "c"}) EXPECT_EQ(Admitted(key, 1), 1);
  int shared = 0;
  for (int i = 0; i < 50; ++i) shared += Admitted(absl::StrCat("new", i), 1);
  EXPECT_EQ(shared, 5);
  clock_.Advance(3 * kSecond);
  EXPECT_EQ(Admitted("d", 10), 5) << "a, b and c were forgotten";
}

TEST_F(LogLimiterTest, WhatWasDroppedIsReportedOnceASecondAtMost) {
  EXPECT_EQ(limiter_.TakeDropped(), 0u);
  Admitted("a", 15);
  EXPECT_EQ(limiter_.TakeDropped(), 10u);
  Admitted("a", 7);
  EXPECT_EQ(limiter_.TakeDropped(), 0u) << "too soon";
  clock_.Advance(kSecond);
  EXPECT_EQ(limiter_.TakeDropped(), 7u);
  EXPECT_EQ(limiter_.TakeDropped(), 0u);
  EXPECT_EQ(Admitted("a", 3), 2);
  EXPECT_EQ(limiter_.TakeDroppedNow(), 1u);
  EXPECT_EQ(limiter_.dropped(), 18u);
}

}  // namespace
}  // namespace mmud
