#include "server/services/dirty_log_control.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "google/protobuf/repeated_field.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/split_job.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/base/wall_time.h"
#include "server/rpc/watch.h"
#include "server/services/convert.h"
#include "server/services/vm_convert.h"

namespace mmud {
namespace {

constexpr absl::Duration kMinTtl = absl::Seconds(1);
constexpr absl::Duration kMaxTtl = absl::Hours(7 * 24);
// How often it is looked whether a paced call is still wanted.
constexpr absl::Duration kLookPeriod = absl::Milliseconds(20);

absl::StatusOr<std::vector<uint32_t>> ToSlots(
    const google::protobuf::RepeatedField<int32_t>& ids, const ManagedVm& vm) {
  std::vector<uint32_t> slots;
  for (int i = 0; i < ids.size(); ++i) {
    absl::StatusOr<uint32_t> slot =
        ToSlot(ids[i], absl::StrCat("slots[", i, "]"));
    if (!slot.ok()) return slot.status();
    if (!vm.FindSlot(*slot).has_value()) {
      return MemslotNotFound(MakeMemslotName(vm.name(), *slot));
    }
    slots.push_back(*slot);
  }
  return slots;
}

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

v1::DirtyLogMode ModeOf(const ManagedVm& vm) {
  return vm.vm().config().dirty_ring_entries != 0 ? v1::DIRTY_LOG_MODE_RING
                                                  : v1::DIRTY_LOG_MODE_BITMAP;
}

v1::DirtyLogProtection ProtectionOf(const ManagedVm& vm) {
  return vm.vm().config().pml == mmu::VmConfig::Pml::kYes
             ? v1::DIRTY_LOG_PROTECTION_D_BIT
             : v1::DIRTY_LOG_PROTECTION_WRITE_PROTECT;
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

// Splits the huge pages of the slots that are about to log (`slots`, or all
// that can be written if it is empty) at the pace that the caller wants, so
// that switching on finds none left.
absl::Status SplitAhead(ManagedVm& vm, const std::vector<uint32_t>& slots,
                        const mmu::Throttle& throttle, const PacedCall& call,
                        mmu::SplitProgress* progress) {
  mmu::SplitRequest split;
  split.throttle = throttle;
  // One that is deleted meanwhile has nothing to split.
  split.missing = mmu::MissingSlots::kSkip;
  const absl::flat_hash_set<uint32_t> named(slots.begin(), slots.end());
  for (const mmu::MemslotInfo& info : vm.SortedSlots()) {
    const mmu::MemslotConfig& slot = info.config;
    const bool wanted = named.empty()
                            ? slot.mode == mmu::MemslotConfig::Mode::kReadWrite
                            : named.contains(slot.slot);
    if (slot.address_space != 0 || info.dirty_log_enabled || !wanted) continue;
    split.ranges.push_back(mmu::GfnRange::Of(
        mmu::ToGfn(slot.gpa), slot.size_bytes >> mmu::kPageShift));
  }
  if (split.ranges.empty()) return absl::OkStatus();
  absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
      mmu::SplitJob::Create(vm.vm(), split);
  if (!job.ok()) return job.status();
  absl::Status status;
  {
    Watch watch(call.timer, kLookPeriod, call.keep_going,
                [&job] { (*job)->Cancel(); });
    status = (*job)->Run();
    if (status.ok()) status = watch.status();
  }
  *progress = (*job)->Progress();
  return status;
}

v1::DirtyLog Describe(const ManagedVm& vm, const DirtyLogSettings& settings) {
  v1::DirtyLog log;
  log.set_vm(vm.name());
  log.set_mode(ModeOf(vm));
  log.set_protection(ProtectionOf(vm));
  *log.mutable_start_time() = ToProto(settings.start_time);
  if (settings.ttl != absl::InfiniteDuration()) {
    *log.mutable_ttl() = ToProto(settings.ttl);
    *log.mutable_expire_time() = ToProto(WallTime::Of(settings.expires()));
  }
  for (const mmu::DirtyLogInfo& info : vm.vm().DirtyLogs()) {
    const v1::SlotDirtyLog slot = ToProto(info);
    const bool first = log.slots().empty();
    log.set_initially_set((first || log.initially_set()) &&
                          slot.initially_set());
    log.set_split(first || log.split() == slot.split()
                      ? slot.split()
                      : v1::DIRTY_LOG_SPLIT_UNSPECIFIED);
    *log.add_slots() = slot;
  }
  return log;
}

int64_t EagerSplits(const mmu::MmuMetrics& metrics, int from) {
  return static_cast<int64_t>(
      metrics.splits[from][static_cast<int>(mmu::SplitTrigger::kEager)]);
}

}  // namespace

absl::StatusOr<v1::StartDirtyLogResponse> StartDirtyLog(
    const v1::StartDirtyLogRequest& request, ManagedVm& vm,
    const PacedCall& call) {
  if (absl::Status status = CheckModes(request, vm); !status.ok())
    return status;
  DirtyLogSettings settings;
  if (request.has_ttl() && (!FromProto(request.ttl(), &settings.ttl) ||
                            settings.ttl < kMinTtl || settings.ttl > kMaxTtl)) {
    return WrongValue("INVALID_TTL", "ttl", Show(request.ttl()),
                      "from 1 s to 7 days, or unset");
  }
  mmu::DirtyLogConfig config;
  config.initially_set = request.initially_set() ? mmu::InitiallySet::kYes
                                                 : mmu::InitiallySet::kNo;
  absl::StatusOr<mmu::SplitPolicy> policy =
      ToPolicy(request.split(), request.initially_set());
  if (!policy.ok()) return policy.status();
  config.split = *policy;
  absl::StatusOr<mmu::Throttle> throttle =
      ToThrottle(request.throttle(), "throttle");
  if (!throttle.ok()) return throttle.status();
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlots(request.slots(), vm);
  if (!slots.ok()) return slots.status();
  config.slots = *slots;
  config.max_lock_hold = throttle->max_lock_hold;

  mmu::SplitProgress ahead;
  const auto after_split = [&](absl::Status error) {
    if (ahead.split_2m_count + ahead.split_1g_count != 0) call.part_done();
    return error;
  };
  if (request.has_throttle() && config.split == mmu::SplitPolicy::kEager) {
    absl::Status status = SplitAhead(vm, config.slots, *throttle, call, &ahead);
    if (!status.ok()) return after_split(std::move(status));
  }
  absl::MutexLock lock(&vm.dirty_log_mu());
  const bool was_off = !vm.vm().LogsDirtyPages();
  const absl::optional<DirtyLogSettings> before = vm.dirty_log_settings();
  if (!was_off && before.has_value() && before->ttl != settings.ttl) {
    return after_split(WithResource(
        ApiError(absl::StatusCode::kAlreadyExists, "DIRTY_LOG_ACTIVE",
                 absl::StrCat(vm.name(), " logs already, with another ttl")),
        "mmud.v1.Vm", vm.name()));
  }
  const mmu::MmuMetrics metrics_before = vm.vm().Metrics();
  mmu::MmuCost cost = ahead.cost;
  if (absl::Status status = vm.vm().StartDirtyLog(config, &cost);
      !status.ok()) {
    return after_split(std::move(status));
  }
  const mmu::MmuMetrics metrics = vm.vm().Metrics();
  const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
  settings.start_time =
      was_off || !before ? WallTime::Now() : before->start_time;
  settings.last_used = now;
  vm.set_dirty_log_settings(settings);
  if (was_off) vm.dirty_rate().Restart(vm.SampleDirty(now));

  v1::StartDirtyLogResponse response;
  *response.mutable_dirty_log() = Describe(vm, settings);
  response.mutable_splits()->set_split_2m_count(EagerSplits(metrics, 0) -
                                                EagerSplits(metrics_before, 0) +
                                                ahead.split_2m_count);
  response.mutable_splits()->set_split_1g_count(EagerSplits(metrics, 1) -
                                                EagerSplits(metrics_before, 1) +
                                                ahead.split_1g_count);
  *response.mutable_cost() = ToProto(cost);
  return response;
}

absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
    const v1::StopDirtyLogRequest& request, ManagedVm& vm) {
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlots(request.slots(), vm);
  if (!slots.ok()) return slots.status();
  mmu::MmuCost cost;
  absl::MutexLock lock(&vm.dirty_log_mu());
  absl::StatusOr<mmu::StopResult> result = vm.vm().StopDirtyLog(
      *slots,
      request.recover_huge_pages() ? mmu::Vm::Recover::kYes
                                   : mmu::Vm::Recover::kNo,
      request.discard_unacked() ? mmu::Vm::Unacked::kDiscard
                                : mmu::Vm::Unacked::kRefuse,
      &cost);
  if (!result.ok()) return result.status();
  ForgetSettingsIfOff(vm);
  v1::StopDirtyLogResponse response;
  response.set_discarded_page_count(
      static_cast<int64_t>(result->discarded_page_count));
  response.set_recovered_2m_count(
      static_cast<int64_t>(result->recovered_2m_count));
  response.set_recovered_1g_count(
      static_cast<int64_t>(result->recovered_1g_count));
  *response.mutable_cost() = ToProto(cost);
  return response;
}

void ForgetSettingsIfOff(ManagedVm& vm) {
  if (!vm.vm().LogsDirtyPages()) vm.set_dirty_log_settings(absl::nullopt);
}

absl::optional<absl::StatusOr<uint64_t>> StopIfExpired(ManagedVm& vm,
                                                       mmu::MonotonicTime now) {
  absl::optional<DirtyLogSettings> settings = vm.dirty_log_settings();
  if (!settings.has_value() || now < settings->expires()) {
    return absl::nullopt;
  }
  absl::MutexLock lock(&vm.dirty_log_mu());
  // Harvested or stopped meanwhile?
  settings = vm.dirty_log_settings();
  if (!settings.has_value() || now < settings->expires()) {
    return absl::nullopt;
  }
  const absl::StatusOr<mmu::StopResult> stopped = vm.vm().StopDirtyLog(
      {}, mmu::Vm::Recover::kNo, mmu::Vm::Unacked::kDiscard, nullptr);
  ForgetSettingsIfOff(vm);
  if (!stopped.ok()) return stopped.status();
  return stopped->discarded_page_count;
}

absl::Status DirtyLogOff(const ManagedVm& vm, uint32_t slot) {
  const std::string name = MakeMemslotName(vm.name(), slot);
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition, "DIRTY_LOG_OFF",
               absl::StrCat(name, " does not log; call StartDirtyLog first")),
      "mmud.v1.Memslot", name);
}

}  // namespace mmud
