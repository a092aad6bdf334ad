#include "server/convert/dirty_log_control_convert.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmud/v1/common.pb.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_convert.h"

namespace mmud {
namespace {

constexpr absl::Duration kMinTtl = absl::Seconds(1);
constexpr absl::Duration kMaxTtl = absl::Hours(7 * 24);

// mmu_core checks which policies may be combined with `initially_set`.
absl::StatusOr<mmu::SplitPolicy> ToPolicy(v1::DirtyLogSplit split,
                                          bool initially_set) {
  switch (split) {
    case v1::DIRTY_LOG_SPLIT_UNSPECIFIED:
      return initially_set ? mmu::SplitPolicy::kOnClear
                           : mmu::SplitPolicy::kEager;
    case v1::DIRTY_LOG_SPLIT_NONE:
      return mmu::SplitPolicy::kNone;
    case v1::DIRTY_LOG_SPLIT_EAGER:
      return mmu::SplitPolicy::kEager;
    case v1::DIRTY_LOG_SPLIT_ON_CLEAR:
      return mmu::SplitPolicy::kOnClear;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "split",
                        static_cast<int>(split), "NONE, EAGER or ON_CLEAR");
  }
}

absl::Status CheckProtection(v1::DirtyLogProtection protection,
                             const VmFacts& vm) {
  switch (protection) {
    case v1::DIRTY_LOG_PROTECTION_UNSPECIFIED:
      return absl::OkStatus();
    case v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT:
    case v1::DIRTY_LOG_PROTECTION_D_BIT:
      if (protection == ProtectionOf(vm.config)) return absl::OkStatus();
      return InvalidField(
          mmu::Reason::kInvalidDirtyLogMode, "protection",
          ProtectionOf(vm.config) == v1::DIRTY_LOG_PROTECTION_D_BIT
              ? absl::StrCat("protection is WRITE_PROTECT; ", vm.name,
                             " was made with pml, so it must be D_BIT or "
                             "unset")
              : absl::StrCat("protection is D_BIT; ", vm.name,
                             " has no page-modification logging: make it with "
                             "tdp.pml"));
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "protection",
                        static_cast<int>(protection), "WRITE_PROTECT or D_BIT");
  }
}

absl::Status CheckModes(const v1::StartDirtyLogRequest& request,
                        const VmFacts& vm) {
  switch (request.mode()) {
    case v1::DIRTY_LOG_MODE_UNSPECIFIED:
      break;
    case v1::DIRTY_LOG_MODE_BITMAP:
    case v1::DIRTY_LOG_MODE_RING:
      if (request.mode() == ModeOf(vm.config)) break;
      return InvalidField(
          mmu::Reason::kInvalidDirtyLogMode, "mode",
          ModeOf(vm.config) == v1::DIRTY_LOG_MODE_RING
              ? absl::StrCat("mode is BITMAP; ", vm.name,
                             " was made with dirty rings, so it must be RING "
                             "or unset")
              : absl::StrCat("mode is RING; ", vm.name,
                             " has no dirty rings: make it with "
                             "dirty_ring_entries"));
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "mode",
                        static_cast<int>(request.mode()), "BITMAP or RING");
  }
  return CheckProtection(request.protection(), vm);
}

v1::StartDirtyLogState ToProto(DirtyLogStartJob::State state) {
  switch (state) {
    case DirtyLogStartJob::State::kSplitting:
      return v1::START_DIRTY_LOG_STATE_SPLITTING;
    case DirtyLogStartJob::State::kProtecting:
      return v1::START_DIRTY_LOG_STATE_PROTECTING;
    case DirtyLogStartJob::State::kDone:
      return v1::START_DIRTY_LOG_STATE_DONE;
    case DirtyLogStartJob::State::kGivenUp:
      return v1::START_DIRTY_LOG_STATE_GIVEN_UP;
  }
  return v1::START_DIRTY_LOG_STATE_UNSPECIFIED;
}

v1::SplitCounts ToProto(const HugePageSplits& splits) {
  v1::SplitCounts counts;
  counts.set_split_2m_count(splits.of_2m);
  counts.set_split_1g_count(splits.of_1g);
  return counts;
}

// Reads the owner's name and token, and the time that the log may be without a
// call. INVALID_OWNER, INVALID_OWNER_TOKEN, INVALID_LEASE, INVALID_TTL.
absl::Status ReadOwner(const v1::StartDirtyLogRequest& request,
                       mmu::DirtyLogStart* start) {
  absl::StatusOr<mmu::LogClaim> claim =
      ToLogClaim(request.owner(), request.owner_token(),
                 request.has_lease() ? &request.lease() : nullptr);
  if (!claim.ok()) return claim.status();
  start->claim = *std::move(claim);
  if (request.has_ttl() && (!FromProto(request.ttl(), &start->ttl) ||
                            start->ttl < kMinTtl || start->ttl > kMaxTtl)) {
    return WrongValue(mmu::Reason::kInvalidTtl, "ttl", Show(request.ttl()),
                      "from 1 s to 7 days, or unset");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DirtyLogStartRequest> ToStartRequest(
    const v1::StartDirtyLogRequest& request, const VmFacts& vm) {
  DirtyLogStartRequest start;
  if (absl::Status status = ReadOwner(request, &start.start); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckModes(request, vm); !status.ok()) {
    return status;
  }
  mmu::DirtyLogConfig& config = start.start.config;
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
  if (request.has_throttle()) start.split_ahead = *throttle;
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(request.slots());
  if (!slots.ok()) return slots.status();
  config.slots = *std::move(slots);
  return start;
}

v1::StartDirtyLogResponse ToResponse(const VmFacts& vm,
                                     const StartedDirtyLog& started) {
  v1::StartDirtyLogResponse response;
  *response.mutable_dirty_log() = ToProto(vm, started.log);
  *response.mutable_splits() = ToProto(started.splits);
  *response.mutable_cost() = ToProto(started.cost);
  return response;
}

v1::StartDirtyLogMetadata ToMetadata(
    const DirtyLogStartJob::Progress& progress) {
  v1::StartDirtyLogMetadata metadata;
  metadata.set_state(ToProto(progress.state));
  metadata.set_total_bytes(progress.total_bytes);
  metadata.set_done_bytes(progress.done_bytes);
  *metadata.mutable_splits() = ToProto(progress.splits);
  *metadata.mutable_cost() = ToProto(progress.cost);
  return metadata;
}

absl::StatusOr<mmu::DirtyLogStop> ToStop(
    const v1::StopDirtyLogRequest& request) {
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
  return stop;
}

v1::StopDirtyLogResponse ToResponse(const StoppedDirtyLog& stopped) {
  v1::StopDirtyLogResponse response;
  *response.mutable_discarded() = ToProto(stopped.result.discarded);
  response.set_recovered_2m_count(
      static_cast<int64_t>(stopped.result.recovered_2m_count));
  response.set_recovered_1g_count(
      static_cast<int64_t>(stopped.result.recovered_1g_count));
  *response.mutable_cost() = ToProto(stopped.cost);
  return response;
}

}  // namespace mmud
