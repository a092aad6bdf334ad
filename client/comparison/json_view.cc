#include "client/comparison/json_view.h"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/comparison/stalls.h"
#include "google/protobuf/message.h"
#include "mmud/v1/common.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

// Makes JSON of messages and keeps the first error, so that objects can be
// written as they look. Thread-compatible.
class Messages {
 public:
  Json operator()(const google::protobuf::Message& message) {
    absl::StatusOr<Json> json = MessageToJson(message);
    if (json.ok()) return *std::move(json);
    if (status_.ok()) status_ = json.status();
    return nullptr;
  }
  template <typename Message>
  Json operator()(const std::optional<Message>& message) {
    return message.has_value() ? (*this)(*message) : Json(nullptr);
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

template <typename Value>
Json OrNull(const std::optional<Value>& value) {
  return value.has_value() ? Json(*value) : Json(nullptr);
}

Json ToJson(const std::optional<Percentile>& percentile) {
  if (!percentile.has_value()) return nullptr;
  const bool bounded = percentile->at_most != absl::InfiniteDuration();
  return {{"more_than", DurationToJson(percentile->more_than)},
          {"at_most", bounded ? Json(DurationToJson(percentile->at_most))
                              : Json(nullptr)}};
}

Json StallsOf(const CombinationResult& result, Messages& message) {
  Json times = Json::object();
  for (const auto& [cause, time] : result.stall_times) {
    times[cause] = DurationToJson(time);
  }
  return {{"p50", ToJson(PercentileOf(result.stalls, 500))},
          {"p99", ToJson(PercentileOf(result.stalls, 990))},
          {"p99_9", ToJson(PercentileOf(result.stalls, 999))},
          {"histogram", message(result.stalls)},
          {"time_by_cause", std::move(times)}};
}

Json ToJson(const std::optional<SplitAhead>& split, Messages& message) {
  if (!split.has_value()) return nullptr;
  return {{"running_time", DurationToJson(split->time)},
          {"page_count", split->page_count},
          {"pages_per_second", OrNull(PagesPerSecond(*split))},
          {"throttled", message(split->throttled)},
          {"cost", message(split->cost)}};
}

Json TimesOf(const std::vector<absl::Duration>& times) {
  Json json = Json::array();
  for (const absl::Duration time : times) json.push_back(DurationToJson(time));
  return json;
}

Json ToJson(const CombinationResult& result, Messages& message) {
  const Combination& combination = result.combination;
  const DirtyPass& pass = result.pass;
  std::optional<v1::SplitCounts> ahead;
  if (result.split_ahead.has_value()) ahead = result.split_ahead->splits;
  return {{"policy", PolicyWord(combination.policy)},
          {"vcpu_count", combination.vcpu_count},
          {"write_fraction", combination.write_fraction},
          {"vm", absl::StrCat("vms/", combination.vm_id)},
          {"split_ahead", ToJson(result.split_ahead, message)},
          {"enable",
           {{"running_time", DurationToJson(result.enabling.time)},
            {"cost", message(result.enabling.cost)}}},
          {"dirty",
           {{"running_time", DurationToJson(pass.time)},
            {"running_times", TimesOf(result.pass_times)},
            {"limit_reached", pass.limit_reached},
            {"page_count", pass.page_count},
            {"earlier_page_count", pass.earlier_page_count},
            {"access_count", pass.access_count},
            {"write_count", pass.write_count},
            {"all_written", OrNull(pass.all_written)}}},
          {"stalls", StallsOf(result, message)},
          {"faults", message(result.faults)},
          {"tlb_flush_request_count", OrNull(result.flush_request_count)},
          {"tlb_flush_count", OrNull(result.flush_count)},
          {"tlbi_count", OrNull(result.tlbi_count)},
          {"huge_pages",
           {{"before", message(result.mapped_before)},
            {"after", message(result.mapped_after)},
            {"split_ahead", message(ahead)},
            {"split_at_enable", message(result.enabling.splits)},
            {"split_by_faults", message(result.fault_splits)}}}};
}

}  // namespace

absl::StatusOr<Json> ViewAsJson(const Comparison& comparison) {
  const PlanOptions& options = comparison.plan.options;
  Messages message;
  std::optional<v1::Throttle> throttle;
  if (options.throttle.ByteSizeLong() != 0) throttle = options.throttle;
  Json results = Json::array();
  for (const CombinationResult& result : comparison.results) {
    results.push_back(ToJson(result, message));
  }
  Json json = {{"schema", "mmud.comparison/1"},
               {"mmu", options.mmu->word},
               {"memory_size_bytes", options.memory_bytes},
               {"host_page_size", v1::PageSize_Name(options.huge_page_size)},
               {"seed", options.seed},
               {"repeat_count", options.repeat_count},
               {"time_limit", DurationToJson(options.time_limit)},
               {"load_accesses_per_second", kLoadAccessesPerSecond},
               {"throttle", message(throttle)},
               {"results", std::move(results)}};
  if (!message.status().ok()) return message.status();
  return json;
}

}  // namespace mmud::client
