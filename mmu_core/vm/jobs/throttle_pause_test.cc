#include "mmu_core/vm/jobs/throttle_pause.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/vm/jobs/throttle.h"

namespace mmu {
namespace {

constexpr absl::Duration kMs = absl::Milliseconds(1);

void ExpectPause(const ChunkWork& chunk, const Throttle& throttle,
                 absl::Duration length, ThrottleLimit limit) {
  const ThrottlePause pause = PauseAfter(chunk, throttle);
  EXPECT_LT(absl::AbsDuration(pause.length - length), absl::Microseconds(1));
  EXPECT_EQ(pause.limit, limit);
}

// 512 pages in a millisecond, with 3 flushes and 100 us of stalls.
ChunkWork SomeChunk() {
  return {.bytes = 2 << 20,
          .tlb_flushes = 3,
          .wall = kMs,
          .stalled = absl::Microseconds(100)};
}

TEST(ThrottlePauseTest, WithoutLimitsThereIsNone) {
  ExpectPause(SomeChunk(), {}, absl::ZeroDuration(), ThrottleLimit::kPause);
}

TEST(ThrottlePauseTest, EachLimitAsksForWhatIsMissing) {
  ExpectPause(SomeChunk(), {.min_pause = 5 * kMs}, 5 * kMs,
              ThrottleLimit::kPause);
  ExpectPause(SomeChunk(), {.max_pages_per_second = 51200}, 9 * kMs,
              ThrottleLimit::kRate);
  ExpectPause(SomeChunk(), {.max_flushes_per_second = 100}, 29 * kMs,
              ThrottleLimit::kFlush);
  ExpectPause(SomeChunk(), {.max_vcpu_stall_ratio = 0.01}, 9 * kMs,
              ThrottleLimit::kStall);
}

TEST(ThrottlePauseTest, WhatTookLongEnoughNeedsNone) {
  ChunkWork slow = SomeChunk();
  slow.wall = absl::Seconds(1);
  ExpectPause(slow,
              {.max_pages_per_second = 51200,
               .max_flushes_per_second = 100,
               .max_vcpu_stall_ratio = 0.01},
              absl::ZeroDuration(), ThrottleLimit::kPause);
}

TEST(ThrottlePauseTest, APauseIsNeverNegative) {
  ExpectPause(SomeChunk(), {.min_pause = -5 * kMs}, absl::ZeroDuration(),
              ThrottleLimit::kPause);
}

TEST(ThrottlePauseTest, TheLongestWins) {
  Throttle throttle{.max_pages_per_second = 51200,
                    .min_pause = 2 * kMs,
                    .max_flushes_per_second = 1000,
                    .max_vcpu_stall_ratio = 0.05};
  ExpectPause(SomeChunk(), throttle, 9 * kMs, ThrottleLimit::kRate);
  throttle.min_pause = 10 * kMs;
  ExpectPause(SomeChunk(), throttle, 10 * kMs, ThrottleLimit::kPause);
}

}  // namespace
}  // namespace mmu
