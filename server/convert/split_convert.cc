#include "server/convert/split_convert.h"

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/jobs/recover_job.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

v1::SplitState ToState(mmu::SplitProgress::State state) {
  switch (state) {
    case mmu::SplitProgress::State::kPending:
      return v1::SPLIT_STATE_PENDING;
    case mmu::SplitProgress::State::kRunning:
      return v1::SPLIT_STATE_RUNNING;
    case mmu::SplitProgress::State::kPaused:
      return v1::SPLIT_STATE_PAUSED;
    case mmu::SplitProgress::State::kDone:
      return v1::SPLIT_STATE_DONE;
    case mmu::SplitProgress::State::kCancelled:
      return v1::SPLIT_STATE_CANCELLED;
  }
  return v1::SPLIT_STATE_UNSPECIFIED;
}

v1::SplitSkips ToSkips(const mmu::SplitProgress& progress) {
  const auto count = [&progress](mmu::SplitFailure reason) {
    return progress.skipped_by_reason[static_cast<int>(reason)];
  };
  v1::SplitSkips skips;
  skips.set_no_memory_count(count(mmu::SplitFailure::kNoMemory));
  skips.set_raced_count(count(mmu::SplitFailure::kRaced));
  skips.set_limit_count(count(mmu::SplitFailure::kLimit));
  return skips;
}

v1::SplitCounts ToCounts(const mmu::SplitProgress& progress) {
  v1::SplitCounts counts;
  counts.set_split_2m_count(progress.split_2m_count);
  counts.set_split_1g_count(progress.split_1g_count);
  return counts;
}

}  // namespace

absl::StatusOr<mmu::SplitRequest> ToSplitRequest(
    const v1::SplitHugePagesRequest& request,
    const std::vector<mmu::MemslotInfo>& slots) {
  mmu::SplitRequest split;
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request.ranges(), slots, "ranges");
  if (!ranges.ok()) return ranges.status();
  // No ranges: all memslots that exist when the job is made.
  if (!request.ranges().empty()) split.ranges = *std::move(ranges);
  absl::StatusOr<mmu::Level> target =
      ToLevel(request.target_page_size(), mmu::Level::k4K, "target_page_size");
  if (!target.ok()) return target.status();
  split.target = *target;
  switch (request.order()) {
    case v1::SPLIT_ORDER_UNSPECIFIED:
    case v1::SPLIT_ORDER_ASCENDING:
      split.order = mmu::SplitOrder::kAscending;
      break;
    case v1::SPLIT_ORDER_DESCENDING:
      split.order = mmu::SplitOrder::kDescending;
      break;
    case v1::SPLIT_ORDER_COLDEST_FIRST:
      split.order = mmu::SplitOrder::kColdestFirst;
      break;
    case v1::SPLIT_ORDER_HOTTEST_DIRTY_FIRST:
      split.order = mmu::SplitOrder::kHottestDirtyFirst;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "order",
                        static_cast<int>(request.order()),
                        "ASCENDING, DESCENDING, COLDEST_FIRST or "
                        "HOTTEST_DIRTY_FIRST");
  }
  if (request.has_skip_if_cold_after()) {
    absl::Duration cold;
    if (!FromProto(request.skip_if_cold_after(), &cold) ||
        cold < absl::ZeroDuration()) {
      return WrongValue(mmu::Reason::kInvalidDuration, "skip_if_cold_after",
                        Show(request.skip_if_cold_after()), "at least 0");
    }
    split.skip_if_cold_after = cold;
  }
  absl::StatusOr<mmu::Throttle> throttle =
      ToThrottle(request.throttle(), "throttle");
  if (!throttle.ok()) return throttle.status();
  split.throttle = *throttle;
  return split;
}

v1::ThrottledTime ToProto(
    const std::array<absl::Duration, mmu::kThrottleLimits>& throttled) {
  const auto of = [&throttled](mmu::ThrottleLimit limit) {
    return ToProto(throttled[static_cast<size_t>(limit)]);
  };
  v1::ThrottledTime time;
  *time.mutable_rate() = of(mmu::ThrottleLimit::kRate);
  *time.mutable_lock_hold() = of(mmu::ThrottleLimit::kLockHold);
  *time.mutable_flush() = of(mmu::ThrottleLimit::kFlush);
  *time.mutable_stall() = of(mmu::ThrottleLimit::kStall);
  *time.mutable_pause() = of(mmu::ThrottleLimit::kPause);
  return time;
}

v1::SplitMetadata ToMetadata(const mmu::SplitJob& job) {
  const mmu::SplitProgress progress = job.Progress();
  const mmu::Throttle throttle = job.throttle();
  v1::SplitMetadata metadata;
  metadata.set_state(ToState(progress.state));
  metadata.set_total_bytes(progress.total_bytes);
  metadata.set_done_bytes(progress.done_bytes);
  metadata.set_cold_bytes(progress.cold_bytes);
  *metadata.mutable_splits() = ToCounts(progress);
  *metadata.mutable_skips() = ToSkips(progress);
  *metadata.mutable_throttle() = ToProto(throttle);
  *metadata.mutable_throttled() = ToProto(progress.throttled);
  if (progress.eta != absl::InfiniteDuration()) {
    *metadata.mutable_remaining_time() = ToProto(progress.eta);
  }
  metadata.set_etag(EtagOf(throttle));
  *metadata.mutable_cost() = ToProto(progress.cost);
  return metadata;
}

v1::SplitHugePagesResponse ToResponse(const mmu::SplitProgress& progress) {
  v1::SplitHugePagesResponse response;
  *response.mutable_splits() = ToCounts(progress);
  *response.mutable_skips() = ToSkips(progress);
  *response.mutable_cost() = ToProto(progress.cost);
  return response;
}

v1::RecoverHugePagesResponse ToResponse(
    const mmu::RecoverJob::Progress& progress) {
  v1::RecoverHugePagesResponse response;
  response.set_recovered_2m_count(
      static_cast<int64_t>(progress.recovered.to_2m_count));
  response.set_recovered_1g_count(
      static_cast<int64_t>(progress.recovered.to_1g_count));
  *response.mutable_cost() = ToProto(progress.cost);
  return response;
}

v1::RecoverMetadata ToMetadata(const mmu::RecoverJob& job) {
  const mmu::RecoverJob::Progress progress = job.progress();
  v1::RecoverMetadata metadata;
  metadata.set_total_bytes(progress.total_bytes);
  metadata.set_done_bytes(progress.done_bytes);
  metadata.set_recovered_2m_count(
      static_cast<int64_t>(progress.recovered.to_2m_count));
  metadata.set_recovered_1g_count(
      static_cast<int64_t>(progress.recovered.to_1g_count));
  *metadata.mutable_throttle() = ToProto(job.throttle());
  *metadata.mutable_throttled() = ToProto(progress.throttled);
  // Waiting for the lock is not sleep; it is counted in the cost.
  metadata.mutable_throttled()->clear_lock_hold();
  *metadata.mutable_cost() = ToProto(progress.cost);
  return metadata;
}

std::string EtagOf(const mmu::Throttle& throttle) {
  return MakeEtag(absl::StrCat(
      throttle.max_pages_per_second, " ", throttle.chunk_bytes, " ",
      absl::ToInt64Nanoseconds(throttle.max_lock_hold), " ",
      absl::ToInt64Nanoseconds(throttle.min_pause), " ",
      throttle.max_flushes_per_second, " ", throttle.max_vcpu_stall_ratio));
}

}  // namespace mmud
