#include "server/convert/ager_convert.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/convert/aged_mmus_convert.h"
#include "server/convert/convert.h"
#include "server/convert/working_set_convert.h"

namespace mmud {
namespace {

absl::Status ChangeInterval(const google::protobuf::Duration& proto,
                            absl::string_view field, absl::Duration* interval) {
  absl::Duration value;
  if (!FromProto(proto, &value) || value < kShortestAgerInterval ||
      value > kLongestAgerInterval) {
    return WrongValue(mmu::Reason::kInvalidDuration, field, Show(proto),
                      "from 100 ms to 1 h");
  }
  *interval = value;
  return absl::OkStatus();
}

absl::Status ChangeOptions(const v1::AgerSettings& proto,
                           mmu::GenerationOptions* options) {
  const absl::StatusOr<mmu::AgeOptions> age =
      ToAgeOptions(proto.lock_mode(), v1::SLOW_MMUS_UNSPECIFIED);
  if (!age.ok()) return age.status();
  if (proto.lock_mode() != v1::AGING_LOCK_MODE_UNSPECIFIED) {
    options->fast_only = age->fast_only;
  }
  const absl::StatusOr<mmu::ScanScope> scope = ToScope(proto.scope());
  if (!scope.ok()) return scope.status();
  if (proto.scope() != v1::GENERATION_SCOPE_UNSPECIFIED) {
    options->scope = *scope;
  }
  return absl::OkStatus();
}

v1::AgerSettings ToSettings(const AgerSettings& settings) {
  v1::AgerSettings proto;
  proto.set_enabled(settings.enabled);
  proto.set_cpu_percent(settings.cpu_percent);
  *proto.mutable_min_interval() = ToProto(settings.min_interval);
  *proto.mutable_max_interval() = ToProto(settings.max_interval);
  proto.set_lock_mode(settings.options.fast_only == mmu::FastOnly::kYes
                          ? v1::AGING_LOCK_MODE_LOCKLESS_ONLY
                          : v1::AGING_LOCK_MODE_MAY_LOCK);
  proto.set_scope(ToProto(settings.options.scope));
  return proto;
}

}  // namespace

std::string EtagOf(const AgerSettings& settings) {
  return MakeEtag(ToSettings(settings).SerializeAsString());
}

absl::Status Change(const v1::AgerSettings& proto, AgerSettings* settings) {
  if (proto.has_enabled()) settings->enabled = proto.enabled();
  if (proto.has_cpu_percent()) {
    const absl::StatusOr<int> percent = ToCpuPercent(proto.cpu_percent());
    if (!percent.ok()) return percent.status();
    settings->cpu_percent = *percent;
  }
  if (proto.has_min_interval()) {
    if (absl::Status status = ChangeInterval(
            proto.min_interval(), "min_interval", &settings->min_interval);
        !status.ok()) {
      return status;
    }
  }
  if (proto.has_max_interval()) {
    if (absl::Status status = ChangeInterval(
            proto.max_interval(), "max_interval", &settings->max_interval);
        !status.ok()) {
      return status;
    }
  }
  if (settings->min_interval > settings->max_interval) {
    return WrongValue(mmu::Reason::kInvalidDuration, "min_interval",
                      Show(ToProto(settings->min_interval)),
                      absl::StrCat("at most max_interval, ",
                                   Show(ToProto(settings->max_interval))));
  }
  return ChangeOptions(proto, &settings->options);
}

v1::Ager ToProto(const AgerState& state) {
  v1::Ager proto;
  *proto.mutable_settings() = ToSettings(state.settings);
  proto.set_etag(EtagOf(state.settings));
  *proto.mutable_interval() = ToProto(state.interval);
  if (state.changed_ratio.has_value()) {
    proto.set_changed_ratio(*state.changed_ratio);
  }
  proto.set_generation_count(static_cast<int64_t>(state.generations));
  proto.set_failed_count(static_cast<int64_t>(state.failures));
  *proto.mutable_cpu_time() = ToProto(state.cpu_time);
  proto.set_last_error(std::string(state.last_error.message()));
  return proto;
}

}  // namespace mmud
