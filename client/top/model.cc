#include "client/top/model.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/top/sample.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

// The statistics `stall_*` are nanoseconds of all vCPUs together.
constexpr char kStall[] = "stall_";

VmRates RatesBetween(const VmSample& before, const VmSample& after,
                     absl::Duration interval) {
  VmRates rates;
  rates.interval = interval;
  const double seconds = absl::ToDoubleSeconds(interval);
  const auto per_second = [&](const std::string& name) {
    const int64_t grown = after.statistic(name) - before.statistic(name);
    return static_cast<double>(std::max<int64_t>(grown, 0)) / seconds;
  };
  rates.dirty_pages = per_second("dirty_pages");
  rates.faults = per_second("pf_taken");
  rates.accesses = per_second("accesses");
  rates.writes = per_second("writes");
  rates.tlb_flushes = per_second("remote_tlb_flush");
  const double vcpus = std::max(after.vcpu_count, 1);
  for (const auto& [name, value] : after.statistics) {
    absl::string_view cause = name;
    if (!absl::ConsumePrefix(&cause, kStall)) continue;
    const double ratio = per_second(name) / 1e9 / vcpus;
    rates.stalls[std::string(cause)] = ratio;
    rates.stall_ratio += ratio;
  }
  return rates;
}

void Push(double value, History* history) {
  history->push_back(value);
  if (history->size() > TopModel::kHistory) history->pop_front();
}

}  // namespace

std::string VmRates::worst_stall() const {
  const auto worst = std::max_element(
      stalls.begin(), stalls.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return worst == stalls.end() || worst->second == 0 ? "" : worst->first;
}

void TopModel::Add(TopSample sample) {
  failure_ = absl::OkStatus();
  failing_for_ = absl::ZeroDuration();
  if (newest_ && newest_->daemon.boot_id != sample.daemon.boot_id) {
    ++restart_count_;
  }
  std::map<std::string, VmTrend> before;
  for (VmTrend& vm : vms_) {
    std::string uid = vm.sample.uid;
    before.emplace(std::move(uid), std::move(vm));
  }
  vms_.clear();
  for (VmSample& vm : sample.vms) {
    VmTrend state;
    if (const auto found = before.find(vm.uid); found != before.end()) {
      state = std::move(found->second);
      const absl::Duration interval = sample.time - newest_->time;
      if (interval > absl::ZeroDuration()) {
        state.rates = RatesBetween(state.sample, vm, interval);
        Push(state.rates->dirty_pages, &state.dirty_pages);
        Push(state.rates->faults, &state.faults);
        Push(state.rates->stall_ratio, &state.stall_ratio);
      }
    }
    state.sample = std::move(vm);
    vms_.push_back(std::move(state));
  }
  sample.vms.clear();
  newest_ = std::move(sample);
}

void TopModel::AddFailure(const absl::Status& status, mmu::MonotonicTime time) {
  if (failure_.ok()) failing_since_ = time;
  failure_ = status;
  failing_for_ = time - failing_since_;
}

const VmTrend* TopModel::FindVm(const std::string& uid) const {
  const auto found =
      std::find_if(vms_.begin(), vms_.end(),
                   [&uid](const VmTrend& vm) { return vm.sample.uid == uid; });
  return found == vms_.end() ? nullptr : &*found;
}

}  // namespace mmud::client
