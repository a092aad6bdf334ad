#include "client/top/json_view.h"

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "client/text/message_json.h"
#include "client/top/columns.h"
#include "client/top/model.h"
#include "client/top/sample.h"
#include "nlohmann/json.hpp"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

// As a google.protobuf.Timestamp, to the second.
std::string TimeJson(WallTime time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ",
                          absl::FromUnixNanos(time.unix_nanos()),
                          absl::UTCTimeZone());
}

Json LogJson(const std::optional<LogSample>& log) {
  if (!log) return nullptr;
  return {{"log_id", log->log_id},
          {"owner", log->owner},
          {"lease", DurationToJson(log->lease)},
          {"lease_expire_time", TimeJson(log->lease_expire_time)},
          {"open_epoch", log->open_epoch},
          {"sealed_epoch", log->sealed_epoch},
          {"open_page_count", log->open_page_count},
          {"sealed_page_count", log->sealed_page_count},
          {"in_flight_page_count", log->in_flight_page_count}};
}

Json RatesJson(const std::optional<VmRates>& rates) {
  if (!rates) return nullptr;
  Json stalls = Json::array();
  for (const auto& [cause, ratio] : rates->stalls) {
    stalls.push_back({{"cause", cause}, {"ratio", ratio}});
  }
  return {{"interval", DurationToJson(rates->interval)},
          {"unique_pages_per_second", rates->dirty_pages},
          {"faults_per_second", rates->faults},
          {"accesses_per_second", rates->accesses},
          {"writes_per_second", rates->writes},
          {"tlb_flushes_per_second", rates->tlb_flushes},
          {"stall_ratio", rates->stall_ratio},
          {"stalls_by_cause", stalls}};
}

Json WorkJson(const WorkSample& work) {
  return {{"name", work.name},
          {"kind", work.kind},
          {"state", work.state},
          {"share", work.share ? Json(*work.share) : Json(nullptr)},
          {"running_time", DurationToJson(work.running_time)},
          {"remaining_time", work.remaining_time
                                 ? Json(DurationToJson(*work.remaining_time))
                                 : Json(nullptr)},
          {"lock_wait", DurationToJson(work.lock_wait)},
          {"max_lock_hold", DurationToJson(work.max_lock_hold)}};
}

Json VmJson(const VmTrend& vm) {
  const VmSample& sample = vm.sample;
  Json conditions = Json::array();
  for (const ConditionSample& condition : sample.conditions) {
    conditions.push_back({{"type", condition.type},
                          {"since", TimeJson(condition.since)},
                          {"message", condition.message}});
  }
  Json work = Json::array();
  for (const WorkSample& one : sample.work) work.push_back(WorkJson(one));
  return {{"vm", "vms/" + sample.id},
          {"vm_uid", sample.uid},
          {"mmu", sample.mmu},
          {"vcpu_count", sample.vcpu_count},
          {"memory_size_bytes", sample.memory_size_bytes},
          {"deleting", sample.is_deleting},
          {"vcpu_state", sample.vcpu_state},
          {"paused_since", sample.paused_since
                               ? Json(TimeJson(*sample.paused_since))
                               : Json(nullptr)},
          {"rates", RatesJson(vm.rates)},
          {"dirty_log", LogJson(sample.log)},
          {"operations", work},
          {"conditions", conditions}};
}

}  // namespace

Json TopJson(const TopModel& model, SortKey sort) {
  const TopSample& newest = *model.newest();
  Json vms = Json::array();
  for (const VmTrend* vm : Sorted(model, sort, SortOrder::kUsual)) {
    vms.push_back(VmJson(*vm));
  }
  return {{"schema", "mmud.top/1"},
          {"time", TimeJson(newest.wall_time)},
          {"version", newest.daemon.version},
          {"boot_id", newest.daemon.boot_id},
          {"uptime", DurationToJson(newest.daemon.uptime)},
          {"call_count", newest.call_count},
          {"call_time", DurationToJson(newest.call_time)},
          {"vms", vms}};
}

}  // namespace mmud::client
