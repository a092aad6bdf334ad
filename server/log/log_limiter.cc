#include "server/log/log_limiter.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace mmud {
namespace {

constexpr int64_t kReportPauseNanos = 1'000'000'000;
// Shared by the keys beyond max_keys; no caller uses this key.
constexpr char kShared[] = "";

}  // namespace

bool LogLimiter::Admit(absl::string_view key) {
  const int64_t now = clock_.NowNanos();
  absl::MutexLock lock(&mu_);
  const auto fill = [now](Bucket& bucket, double per_second, double burst) {
    const auto seconds = static_cast<double>(now - bucket.filled_nanos) * 1e-9;
    bucket.lines = std::min(burst, bucket.lines + seconds * per_second);
    bucket.filled_nanos = now;
  };
  fill(total_, limits_.total_lines_per_second, limits_.total_burst);
  Bucket& bucket = BucketOf(key, now);
  fill(bucket, limits_.lines_per_second, limits_.burst);
  if (bucket.lines < 1 || total_.lines < 1) {
    ++dropped_;
    return false;
  }
  --bucket.lines;
  --total_.lines;
  return true;
}

LogLimiter::Bucket& LogLimiter::BucketOf(absl::string_view key, int64_t now) {
  auto it = buckets_.find(key);
  if (it != buckets_.end()) return it->second;
  if (buckets_.size() >= limits_.max_keys) {
    // A key with a full allowance can be dropped at no loss.
    const double refill = limits_.burst / limits_.lines_per_second * 1e9;
    std::erase_if(buckets_, [&](const auto& entry) {
      return static_cast<double>(now - entry.second.filled_nanos) >= refill;
    });
    if (buckets_.size() >= limits_.max_keys) key = kShared;
  }
  return buckets_
      .try_emplace(std::string(key),
                   Bucket{.lines = limits_.burst, .filled_nanos = now})
      .first->second;
}

uint64_t LogLimiter::TakeDropped() {
  const int64_t now = clock_.NowNanos();
  absl::MutexLock lock(&mu_);
  if (dropped_ == reported_ || now < next_report_nanos_) return 0;
  next_report_nanos_ = now + kReportPauseNanos;
  const uint64_t dropped = dropped_ - reported_;
  reported_ = dropped_;
  return dropped;
}

uint64_t LogLimiter::TakeDroppedNow() {
  absl::MutexLock lock(&mu_);
  const uint64_t dropped = dropped_ - reported_;
  reported_ = dropped_;
  return dropped;
}

uint64_t LogLimiter::dropped() const {
  absl::MutexLock lock(&mu_);
  return dropped_;
}

}  // namespace mmud
