#include "client/heat_watch.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/working_set/newest_ended.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
// An order that is older than a round is of little use, so generations come
// often, whether the working set changes or not.
constexpr absl::Duration kMinInterval = absl::Milliseconds(200);
constexpr absl::Duration kMaxInterval = absl::Seconds(1);
constexpr int32_t kCpuPercent = 10;
constexpr int32_t kRangesPerCall = 10'000;

v1::AgerSettings OurSettings() {
  v1::AgerSettings settings;
  settings.set_enabled(true);
  settings.set_cpu_percent(kCpuPercent);
  *settings.mutable_min_interval() = ToProto(kMinInterval);
  *settings.mutable_max_interval() = ToProto(kMaxInterval);
  // Some MMUs age under mmu_lock, and their memory would look cold otherwise.
  settings.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  settings.set_scope(v1::GENERATION_SCOPE_EVERY_PAGE);
  return settings;
}

bool IsEqual(const v1::AgerSettings& a, const v1::AgerSettings& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

}  // namespace

HeatWatch::HeatWatch(AgingClient* client, std::string vm)
    : client_(client), vm_(std::move(vm)) {}

HeatWatch::~HeatWatch() { Stop().IgnoreError(); }

absl::Status HeatWatch::Start() {
  if (former_.has_value()) return absl::OkStatus();
  v1::GetAgerRequest get;
  get.set_vm(vm_);
  const auto ager = client_->GetAger(get);
  if (!ager.ok()) return ager.status();
  v1::AgerSettings former = ager->ager().settings();
  // A watch that died has left its settings.
  former.set_enabled(former.enabled() && !IsEqual(former, OurSettings()));
  v1::UpdateAgerRequest update;
  update.set_vm(vm_);
  *update.mutable_settings() = OurSettings();
  // An update whose answer was lost may have been made: Stop undoes it.
  former_ = std::move(former);
  return client_->UpdateAger(update).status();
}

absl::Status HeatWatch::AwaitTwoGenerations(absl::Duration limit) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const absl::StatusOr<int64_t> first = NewestEnded();
  if (!first.ok()) return first.status();
  const int64_t last = *first + 2;
  while (true) {
    const absl::StatusOr<int64_t> newest = NewestEnded();
    if (!newest.ok()) return newest.status();
    if (*newest >= last) return absl::OkStatus();
    if (mmu::MonotonicTime::Now() - start > limit) {
      return absl::DeadlineExceededError(
          absl::StrCat("generation ", last, " of ", vm_, " is not there yet"));
    }
    absl::SleepFor(kPollInterval);
  }
}

absl::StatusOr<int64_t> HeatWatch::NewestEnded() {
  v1::GetWorkingSetRequest request;
  request.set_vm(vm_);
  const auto answer = client_->GetWorkingSet(request);
  if (ReasonOf(answer.status()) == v1::NO_GENERATION) return 0;
  if (!answer.ok()) return answer.status();
  const v1::Generation* newest = client::NewestEnded(answer->working_set());
  return newest == nullptr ? 0 : newest->sequence();
}

absl::StatusOr<std::vector<MemoryHeat>> HeatWatch::Read() {
  std::vector<MemoryHeat> heat;
  v1::ListHotRangesRequest request;
  request.set_vm(vm_);
  // Memory that is found young while the list is read moves to its end. So in
  // this order it is there twice, and never missing.
  request.set_order(v1::HEAT_ORDER_COLDEST_FIRST);
  request.set_granularity(v1::PAGE_SIZE_4K);
  request.set_exclude_never_young(true);
  request.set_page_size(kRangesPerCall);
  do {
    const auto page = client_->ListHotRanges(request);
    if (ReasonOf(page.status()) == v1::NO_GENERATION) return heat;
    if (!page.ok()) return page.status();
    for (const v1::HotRange& range : page->ranges()) {
      heat.push_back({{range.extent().gpa_bytes(), range.extent().size_bytes()},
                      range.generation()});
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return heat;
}

absl::StatusOr<YoungPages> HeatWatch::CountYoung(absl::Duration window) {
  v1::GetWorkingSetRequest request;
  request.set_vm(vm_);
  *request.add_windows() = ToProto(window);
  const auto answer = client_->GetWorkingSet(request);
  if (!answer.ok()) return answer.status();
  YoungPages pages;
  int64_t ever_young = 0;
  const v1::WorkingSet& working_set = answer->working_set();
  for (const v1::AgeBin& bin : working_set.bins()) {
    ever_young += bin.page_count();
  }
  if (!working_set.windows().empty()) {
    pages.young_count = working_set.windows(0).size_bytes() / kPageBytes;
  }
  pages.old_count = std::max<int64_t>(ever_young - pages.young_count, 0) +
                    working_set.never_young_page_count();
  return pages;
}

absl::Status HeatWatch::Stop() {
  if (!former_.has_value()) return absl::OkStatus();
  v1::UpdateAgerRequest update;
  update.set_vm(vm_);
  *update.mutable_settings() = *std::exchange(former_, absl::nullopt);
  return client_->UpdateAger(update).status();
}

}  // namespace mmud::client
