#include "mmu_core/guest/rate_limiter.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mmu_core/base/check.h"

namespace mmu {
namespace {

constexpr double kNanosPerSecond = 1e9;
// The maximum cost of a batch, so that sums stay far from overflow.
constexpr double kMaxBatchNanos = 1e17;  // three years

}  // namespace

RateLimiter::RateLimiter(const Clock& clock, double accesses_per_second,
                         int64_t burst_nanos)
    : clock_(clock), burst_nanos_(burst_nanos) {
  MMU_CHECK(burst_nanos >= 0);
  SetRate(accesses_per_second);
}

void RateLimiter::SetRate(double accesses_per_second) {
  MMU_CHECK(std::isfinite(accesses_per_second) && accesses_per_second >= 0);
  accesses_per_second_ = accesses_per_second;
  due_nanos_ = clock_.NowNanos();
  due_fraction_ = 0;
}

int64_t RateLimiter::Reserve(uint64_t accesses) {
  if (accesses_per_second_ == 0) return 0;
  const int64_t now = clock_.NowNanos();
  if (due_nanos_ < now - burst_nanos_) {
    due_nanos_ = now - burst_nanos_;
    due_fraction_ = 0;
  }
  const int64_t wait = std::max<int64_t>(0, due_nanos_ - now);
  const double cost =
      std::min(kMaxBatchNanos, static_cast<double>(accesses) * kNanosPerSecond /
                                   accesses_per_second_) +
      due_fraction_;
  const double whole = std::floor(cost);
  due_nanos_ = std::min(due_nanos_ + static_cast<int64_t>(whole),
                        now + 2 * static_cast<int64_t>(kMaxBatchNanos));
  due_fraction_ = cost - whole;
  return wait;
}

}  // namespace mmu
