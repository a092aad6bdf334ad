#include "server/control/dirty_log_control.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "mmu_core/vm/vm_stats.h"
#include "server/base/errors.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/operation_store.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_convert.h"

namespace mmud {
namespace {

constexpr absl::Duration kMinTtl = absl::Seconds(1);
constexpr absl::Duration kMaxTtl = absl::Hours(7 * 24);

absl::StatusOr<mmu::SplitPolicy> ToPolicy(v1::DirtyLogSplit split,
                                          bool initially_set) {
  switch (split) {
    case v1::DIRTY_LOG_SPLIT_UNSPECIFIED:
      return initially_set ? mmu::SplitPolicy::kOnClear
                           : mmu::SplitPolicy::kEager;
    case v1::DIRTY_LOG_SPLIT_NONE:
      return mmu::SplitPolicy::kNone;
    case v1::DIRTY_LOG_SPLIT_EAGER:
      if (initially_set) break;
      return mmu::SplitPolicy::kEager;
    case v1::DIRTY_LOG_SPLIT_ON_CLEAR:
      if (!initially_set) break;
      return mmu::SplitPolicy::kOnClear;
    default:
      return WrongValue("INVALID_ENUM_VALUE", "split", static_cast<int>(split),
                        "NONE, EAGER or ON_CLEAR");
  }
  return WrongValue(
      "INVALID_SPLIT_POLICY", "split", initially_set ? "EAGER" : "ON_CLEAR",
      "ON_CLEAR or NONE when initially_set, and EAGER or NONE otherwise");
}

absl::Status CheckProtection(v1::DirtyLogProtection protection,
                             const ManagedVm& vm) {
  switch (protection) {
    case v1::DIRTY_LOG_PROTECTION_UNSPECIFIED:
      return absl::OkStatus();
    case v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT:
    case v1::DIRTY_LOG_PROTECTION_D_BIT:
      if (protection == ProtectionOf(vm)) return absl::OkStatus();
      return InvalidField(
          "INVALID_DIRTY_LOG_MODE", "protection",
          ProtectionOf(vm) == v1::DIRTY_LOG_PROTECTION_D_BIT
              ? absl::StrCat("protection is WRITE_PROTECT; ", vm.name(),
                             " was made with pml, so it must be D_BIT or "
                             "unset")
              : absl::StrCat("protection is D_BIT; ", vm.name(),
                             " has no page-modification logging: make it with "
                             "tdp.pml"));
    default:
      return WrongValue("INVALID_ENUM_VALUE", "protection",
                        static_cast<int>(protection), "WRITE_PROTECT or D_BIT");
  }
}

absl::Status CheckModes(const v1::StartDirtyLogRequest& request,
                        const ManagedVm& vm) {
  switch (request.mode()) {
    case v1::DIRTY_LOG_MODE_UNSPECIFIED:
      break;
    case v1::DIRTY_LOG_MODE_BITMAP:
    case v1::DIRTY_LOG_MODE_RING:
      if (request.mode() == ModeOf(vm)) break;
      return InvalidField(
          "INVALID_DIRTY_LOG_MODE", "mode",
          ModeOf(vm) == v1::DIRTY_LOG_MODE_RING
              ? absl::StrCat("mode is BITMAP; ", vm.name(),
                             " was made with dirty rings, so it must be RING "
                             "or unset")
              : absl::StrCat("mode is RING; ", vm.name(),
                             " has no dirty rings: make it with "
                             "dirty_ring_entries"));
    default:
      return WrongValue("INVALID_ENUM_VALUE", "mode",
                        static_cast<int>(request.mode()), "BITMAP or RING");
  }
  return CheckProtection(request.protection(), vm);
}

// What is to be split before the slots log: the ranges of `slots`, or of all
// that can be written if it is empty. MEMSLOT_NOT_FOUND if there are none.
absl::StatusOr<std::vector<mmu::GfnRange>> RangesToLog(
    const ManagedVm& vm, const std::vector<uint32_t>& slots) {
  const absl::flat_hash_set<uint32_t> named(slots.begin(), slots.end());
  std::vector<mmu::GfnRange> ranges;
  for (const mmu::MemslotInfo& info : vm.SortedSlots()) {
    const mmu::MemslotConfig& slot = info.config;
    const bool wanted = named.empty()
                            ? slot.mode == mmu::MemslotConfig::Mode::kReadWrite
                            : named.contains(slot.slot);
    if (slot.address_space != 0 || !wanted) continue;
    ranges.push_back(mmu::GfnRange::Of(mmu::ToGfn(slot.gpa),
                                       slot.size_bytes >> mmu::kPageShift));
  }
  if (!ranges.empty()) return ranges;
  return AboutVm(
      ApiError(absl::StatusCode::kNotFound, "MEMSLOT_NOT_FOUND",
               absl::StrCat("slots is empty, which means all memslots that can "
                            "be written, and ",
                            vm.name(),
                            " has none; name read-only ones to log those")),
      vm.name());
}

int64_t EagerSplits(const mmu::MmuMetrics& metrics, int from) {
  return static_cast<int64_t>(
      metrics.splits[from][static_cast<int>(mmu::SplitTrigger::kEager)]);
}

v1::SplitCounts SplitsSince(const mmu::MmuMetrics& before,
                            const mmu::MmuMetrics& now,
                            const mmu::SplitProgress& ahead) {
  v1::SplitCounts counts;
  counts.set_split_2m_count(EagerSplits(now, 0) - EagerSplits(before, 0) +
                            ahead.split_2m_count);
  counts.set_split_1g_count(EagerSplits(now, 1) - EagerSplits(before, 1) +
                            ahead.split_1g_count);
  return counts;
}

}  // namespace

absl::StatusOr<std::shared_ptr<DirtyLogStartJob>> DirtyLogStartJob::Create(
    const v1::StartDirtyLogRequest& request, ManagedVm& vm) {
  mmu::DirtyLogStart start;
  absl::StatusOr<mmu::LogClaim> claim =
      ToLogClaim(request.owner(), request.owner_token(),
                 request.has_lease() ? &request.lease() : nullptr);
  if (!claim.ok()) return claim.status();
  start.id = NewLogId();
  start.claim = *std::move(claim);
  if (request.has_ttl() && (!FromProto(request.ttl(), &start.ttl) ||
                            start.ttl < kMinTtl || start.ttl > kMaxTtl)) {
    return WrongValue("INVALID_TTL", "ttl", Show(request.ttl()),
                      "from 1 s to 7 days, or unset");
  }
  if (absl::Status status = CheckModes(request, vm); !status.ok()) {
    return status;
  }
  mmu::DirtyLogConfig& config = start.config;
  config.initially_set = request.initially_set() ? mmu::InitiallySet::kYes
                                                 : mmu::InitiallySet::kNo;
  const absl::StatusOr<mmu::SplitPolicy> policy =
      ToPolicy(request.split(), request.initially_set());
  if (!policy.ok()) return policy.status();
  config.split = *policy;
  if (request.has_log_new_memslots() && !request.log_new_memslots()) {
    config.new_memslots = mmu::DirtyLogConfig::NewMemslots::kLeave;
  }
  const absl::StatusOr<mmu::Throttle> throttle =
      ToThrottle(request.throttle(), "throttle");
  if (!throttle.ok()) return throttle.status();
  config.max_lock_hold = throttle->max_lock_hold;
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(request.slots(), vm);
  if (!slots.ok()) return slots.status();
  config.slots = *std::move(slots);
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      RangesToLog(vm, config.slots);
  if (!ranges.ok()) return ranges.status();
  start.now = mmu::MonotonicTime::Now();
  const absl::StatusOr<absl::optional<mmu::DirtyLogView>> log =
      vm.vm().CheckDirtyLogStart(start);
  if (!log.ok()) return AboutVm(log.status(), vm.name());
  std::shared_ptr<mmu::SplitJob> split;
  // Who starts once more what it has started has nothing to split.
  if (!log->has_value() && request.has_throttle() &&
      config.split == mmu::SplitPolicy::kEager) {
    mmu::SplitRequest ahead;
    ahead.ranges = *std::move(ranges);
    ahead.throttle = *throttle;
    // One that is deleted meanwhile has nothing to split.
    ahead.missing = mmu::MissingSlots::kSkip;
    absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
        mmu::SplitJob::Create(vm.vm(), ahead);
    if (!job.ok()) return job.status();
    split = *std::move(job);
  }
  return std::shared_ptr<DirtyLogStartJob>(
      new DirtyLogStartJob(vm, std::move(start), std::move(split)));
}

absl::StatusOr<mmu::DirtyLogView> DirtyLogStartJob::StartNow(
    const mmu::DirtyLogStart& start, ManagedVm& vm, mmu::MmuCost* cost) {
  absl::StatusOr<mmu::DirtyLogView> log = vm.vm().StartDirtyLog(start, cost);
  if (!log.ok()) {
    return AboutVm(log.status(), vm.name());
  }
  if (log->state.id == start.id) {
    vm.dirty_rate().Restart(vm.SampleDirty(mmu::MonotonicTime::Now()));
  }
  return log;
}

absl::StatusOr<v1::StartDirtyLogResponse> DirtyLogStartJob::Run() {
  absl::StatusOr<v1::StartDirtyLogResponse> response = Work();
  absl::MutexLock lock(&mu_);
  state_ = response.ok() ? v1::START_DIRTY_LOG_STATE_DONE
                         : v1::START_DIRTY_LOG_STATE_GIVEN_UP;
  return response;
}

absl::StatusOr<v1::StartDirtyLogResponse> DirtyLogStartJob::Work() {
  mmu::SplitProgress ahead;
  if (split_ != nullptr) {
    if (absl::Status status = split_->Run(); !status.ok()) return status;
    ahead = split_->Progress();
  }
  if (cancelled()) return CancelledOperation();
  {
    absl::MutexLock lock(&mu_);
    state_ = v1::START_DIRTY_LOG_STATE_PROTECTING;
  }
  start_.now = mmu::MonotonicTime::Now();
  const mmu::MmuMetrics before = vm_.vm().Metrics();
  mmu::MmuCost cost = ahead.cost;
  const absl::StatusOr<mmu::DirtyLogView> log = StartNow(start_, vm_, &cost);
  v1::SplitCounts splits = SplitsSince(before, vm_.vm().Metrics(), ahead);
  {
    absl::MutexLock lock(&mu_);
    splits_ = splits;
    cost_ = cost;
  }
  if (!log.ok()) return log.status();
  v1::StartDirtyLogResponse response;
  *response.mutable_dirty_log() = ToProto(vm_, *log);
  *response.mutable_splits() = std::move(splits);
  *response.mutable_cost() = ToProto(cost);
  return response;
}

void DirtyLogStartJob::Cancel() {
  {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }
  if (split_ != nullptr) split_->Cancel();
}

bool DirtyLogStartJob::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

v1::StartDirtyLogMetadata DirtyLogStartJob::Metadata() const {
  v1::StartDirtyLogMetadata metadata;
  metadata.set_vm(vm_.name());
  metadata.set_vm_uid(vm_.uid());
  metadata.set_owner(start_.claim.owner);
  mmu::SplitProgress ahead;
  if (split_ != nullptr) ahead = split_->Progress();
  metadata.set_total_bytes(ahead.total_bytes);
  metadata.set_done_bytes(ahead.done_bytes);
  absl::MutexLock lock(&mu_);
  metadata.set_state(state_);
  if (splits_.has_value()) {
    *metadata.mutable_splits() = *splits_;
    *metadata.mutable_cost() = ToProto(cost_);
  } else {
    metadata.mutable_splits()->set_split_2m_count(ahead.split_2m_count);
    metadata.mutable_splits()->set_split_1g_count(ahead.split_1g_count);
    *metadata.mutable_cost() = ToProto(ahead.cost);
  }
  return metadata;
}

absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
    const v1::StopDirtyLogRequest& request, ManagedVm& vm) {
  mmu::DirtyLogStop stop;
  if (request.force()) {
    const absl::StatusOr<absl::optional<mmu::LogId>> id =
        ToLogId(request.log_id());
    if (!id.ok()) return id.status();
    stop.log_id = *id;
  } else {
    const absl::StatusOr<mmu::LogCall> call = ToLogCall(request);
    if (!call.ok()) return call.status();
    stop.by = *call;
  }
  stop.undelivered = request.discard_undelivered() ? mmu::Undelivered::kDiscard
                                                   : mmu::Undelivered::kRefuse;
  stop.recover = request.recover_huge_pages() ? mmu::RecoverOnStop::kYes
                                              : mmu::RecoverOnStop::kNo;
  mmu::MmuCost cost;
  const absl::StatusOr<mmu::StopResult> result =
      vm.vm().StopDirtyLog(stop, &cost);
  if (!result.ok()) {
    return AboutVm(result.status(), vm.name());
  }
  v1::StopDirtyLogResponse response;
  *response.mutable_discarded() = ToProto(result->discarded);
  response.set_recovered_2m_count(
      static_cast<int64_t>(result->recovered_2m_count));
  response.set_recovered_1g_count(
      static_cast<int64_t>(result->recovered_1g_count));
  *response.mutable_cost() = ToProto(cost);
  return response;
}

}  // namespace mmud
