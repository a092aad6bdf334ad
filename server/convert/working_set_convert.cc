#include "server/convert/working_set_convert.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/working_set.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/base/wall_time.h"
#include "server/control/working_set_sizes.h"
#include "server/convert/aged_mmus_convert.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

constexpr char kList[] = "hot_ranges";
constexpr int kMaxWindows = 16;
constexpr absl::Duration kShortestWindow = absl::Milliseconds(1);
constexpr absl::Duration kLongestWindow = absl::Hours(24 * 30);
constexpr uint64_t kMaxHeatUnits = uint64_t{4} << 20;
constexpr int kDefaultRanges = 1000;
constexpr int kMaxRanges = 10'000;

google::protobuf::Duration NanosToProto(int64_t nanos) {
  return ToProto(absl::Nanoseconds(nanos));
}

google::protobuf::Timestamp WallTimeOf(int64_t monotonic_nanos) {
  return ToProto(WallTime::Of(mmu::MonotonicTime::FromNanos(monotonic_nanos)));
}

v1::AgeBin ToProto(const mmu::WorkingSetBin& bin) {
  v1::AgeBin proto;
  proto.set_generation(static_cast<int64_t>(bin.sequence));
  *proto.mutable_min_age() = NanosToProto(bin.min_age_nanos);
  if (bin.max_age_nanos.has_value()) {
    *proto.mutable_max_age() = NanosToProto(*bin.max_age_nanos);
  }
  proto.set_page_count(static_cast<int64_t>(bin.pages));
  proto.set_size_bytes(static_cast<int64_t>(bin.bytes()));
  return proto;
}

v1::WorkingSetSize ToProto(const mmu::WorkingSetWindow& window) {
  v1::WorkingSetSize proto;
  *proto.mutable_window() = NanosToProto(window.window_nanos);
  proto.set_size_bytes(static_cast<int64_t>(window.bytes()));
  proto.set_complete(window.complete);
  return proto;
}

// The number of aligned blocks of `unit` that `range` reaches into.
uint64_t UnitsOf(mmu::GfnRange range, mmu::Level unit) {
  const mmu::Gfn last = mmu::RoundDown(range.end - 1, unit);
  return (last - mmu::RoundDown(range.start, unit)) / mmu::PagesPer(unit) + 1;
}

absl::StatusOr<std::vector<int64_t>> ToWindowsNanos(
    const google::protobuf::RepeatedPtrField<google::protobuf::Duration>&
        windows) {
  std::vector<int64_t> nanos;
  if (windows.empty()) {
    for (const WorkingSetWindowLabel& window : kWorkingSetWindows) {
      nanos.push_back(window.nanos);
    }
  }
  if (windows.size() > kMaxWindows) {
    return InvalidField(mmu::Reason::kInvalidWindow, "windows",
                        absl::StrCat("windows has ", windows.size(),
                                     " entries; it may have ", kMaxWindows));
  }
  for (int i = 0; i < windows.size(); ++i) {
    absl::Duration window;
    if (!FromProto(windows[i], &window) || window < kShortestWindow ||
        window > kLongestWindow) {
      return WrongValue(mmu::Reason::kInvalidWindow,
                        absl::StrCat("windows[", i, "]"), Show(windows[i]),
                        "from 1 ms to 30 days");
    }
    nanos.push_back(absl::ToInt64Nanoseconds(window));
  }
  return nanos;
}

absl::StatusOr<absl::optional<mmu::HeatPosition>> ToPosition(
    const std::string& page_token) {
  const absl::StatusOr<std::string> key = ParsePageToken(kList, page_token);
  if (!key.ok()) return key.status();
  if (key->empty()) return absl::optional<mmu::HeatPosition>();
  const std::vector<std::string> parts = absl::StrSplit(*key, '.');
  mmu::HeatPosition position;
  uint64_t gfn = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &position.sequence) ||
      !absl::SimpleAtoi(parts[1], &gfn)) {
    return ParsePageToken(kList, page_token + "!").status();
  }
  position.gfn = mmu::Gfn(gfn);
  return absl::optional<mmu::HeatPosition>(position);
}

}  // namespace

absl::StatusOr<mmu::ScanScope> ToScope(v1::GenerationScope scope) {
  switch (scope) {
    case v1::GENERATION_SCOPE_UNSPECIFIED:
    case v1::GENERATION_SCOPE_EVERY_PAGE:
      return mmu::ScanScope::kEveryPage;
    case v1::GENERATION_SCOPE_LOOK_AROUND:
      return mmu::ScanScope::kLookAround;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "scope",
                        static_cast<int>(scope), "EVERY_PAGE or LOOK_AROUND");
  }
}

v1::GenerationScope ToProto(mmu::ScanScope scope) {
  return scope == mmu::ScanScope::kLookAround ? v1::GENERATION_SCOPE_LOOK_AROUND
                                              : v1::GENERATION_SCOPE_EVERY_PAGE;
}

absl::StatusOr<mmu::GenerationOptions> ToGenerationOptions(
    const v1::CreateGenerationRequest& request) {
  const absl::StatusOr<mmu::AgeOptions> age =
      ToAgeOptions(request.lock_mode(), request.slow_mmus());
  if (!age.ok()) return age.status();
  const absl::StatusOr<mmu::ScanScope> scope = ToScope(request.scope());
  if (!scope.ok()) return scope.status();
  return mmu::GenerationOptions{
      .fast_only = age->fast_only, .slow = age->slow, .scope = *scope};
}

absl::StatusOr<int> ToCpuPercent(int32_t percent) {
  if (percent >= 1 && percent <= 100) return percent;
  return WrongValue(mmu::Reason::kInvalidThrottle, "cpu_percent", percent,
                    "from 1 to 100");
}

v1::Generation ToProto(const mmu::Generation& generation,
                       const std::vector<mmu::MmuKind>& mmus,
                       int64_t now_nanos) {
  const mmu::GenerationCoverage coverage =
      mmu::GenerationCoverage::FromFlags(generation.totals.coverage);
  v1::Generation proto;
  proto.set_sequence(static_cast<int64_t>(generation.sequence));
  *proto.mutable_start_time() = WallTimeOf(generation.began_at_nanos);
  *proto.mutable_since_start() =
      NanosToProto(now_nanos - generation.began_at_nanos);
  if (!generation.ended_at_nanos.has_value()) return proto;
  *proto.mutable_end_time() = WallTimeOf(*generation.ended_at_nanos);
  *proto.mutable_since_end() =
      NanosToProto(now_nanos - *generation.ended_at_nanos);
  proto.set_young_page_count(
      static_cast<int64_t>(generation.totals.young_pages));
  proto.set_examined_page_count(
      static_cast<int64_t>(generation.totals.mapped_pages));
  AddMmus(mmus, coverage.reach, proto.mutable_mmus());
  proto.set_scope(ToProto(coverage.look_around ? mmu::ScanScope::kLookAround
                                               : mmu::ScanScope::kEveryPage));
  proto.set_incomplete(coverage.incomplete);
  proto.set_others_cleared(coverage.others_cleared);
  return proto;
}

v1::GenerationMetadata ToMetadata(const GenerationProgress& progress) {
  v1::GenerationMetadata metadata;
  metadata.set_total_bytes(
      static_cast<int64_t>(progress.total_pages * mmu::kPageSize));
  metadata.set_done_bytes(
      static_cast<int64_t>(progress.done_pages * mmu::kPageSize));
  *metadata.mutable_cpu_time() = ToProto(progress.cpu_time);
  *metadata.mutable_cost() = ToProto(progress.cost);
  return metadata;
}

absl::StatusOr<WorkingSetQuery> ToWorkingSetQuery(
    const v1::GetWorkingSetRequest& request) {
  WorkingSetQuery query;
  absl::StatusOr<std::vector<int64_t>> windows =
      ToWindowsNanos(request.windows());
  if (!windows.ok()) return windows.status();
  query.windows_nanos = *std::move(windows);
  if (request.heat_map_unit() == v1::PAGE_SIZE_UNSPECIFIED) return query;
  const absl::StatusOr<mmu::Level> unit =
      ToLevel(request.heat_map_unit(), mmu::Level::k4K, "heat_map_unit");
  if (!unit.ok()) return unit.status();
  query.heat_map_unit = *unit;
  return query;
}

v1::WorkingSet ToProto(const mmu::WorkingSetSnapshot& snapshot,
                       const std::vector<mmu::MmuKind>& mmus,
                       int64_t now_nanos) {
  v1::WorkingSet proto;
  for (const mmu::Generation& generation : snapshot.generations) {
    *proto.add_generations() = ToProto(generation, mmus, now_nanos);
  }
  for (const mmu::WorkingSetBin& bin : snapshot.bins) {
    *proto.add_bins() = ToProto(bin);
  }
  for (const mmu::WorkingSetWindow& window : snapshot.windows) {
    *proto.add_windows() = ToProto(window);
  }
  proto.set_never_young_page_count(
      static_cast<int64_t>(snapshot.mapped_never_young_pages));
  if (snapshot.staleness_nanos.has_value()) {
    *proto.mutable_staleness() = NanosToProto(*snapshot.staleness_nanos);
  }
  return proto;
}

absl::Status AddHeatMaps(const mmu::GenerationView& view, mmu::Level unit,
                         v1::WorkingSet* working_set) {
  uint64_t units = 0;
  for (const mmu::SlotMap& slot : *view.slots) {
    units += UnitsOf(slot.slot.range, unit);
  }
  if (units > kMaxHeatUnits) {
    return InvalidField(
        mmu::Reason::kTooManyPages, "heat_map_unit",
        absl::StrCat("with this heat_map_unit the memslots have ", units,
                     " units; an answer may have ", kMaxHeatUnits,
                     ": use a larger unit"));
  }
  for (const mmu::SlotMap& slot : *view.slots) {
    v1::HeatMap* map = working_set->add_heat_maps();
    map->set_slot(static_cast<int32_t>(slot.slot.id));
    *map->mutable_extent() = ToExtent(slot.slot.range);
    map->set_unit(ToPageSize(unit));
    const std::vector<mmu::GenerationAge> ages =
        mmu::HeatOfBlocks(view, slot.slot.range, unit);
    map->set_ages(ages.data(), ages.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<mmu::HeatQuery> ToHeatQuery(
    const v1::ListHotRangesRequest& request) {
  mmu::HeatQuery query;
  switch (request.order()) {
    case v1::HEAT_ORDER_UNSPECIFIED:
    case v1::HEAT_ORDER_HOTTEST_FIRST:
      query.order = mmu::HeatOrder::kHottestFirst;
      break;
    case v1::HEAT_ORDER_COLDEST_FIRST:
      query.order = mmu::HeatOrder::kColdestFirst;
      break;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "order",
                        static_cast<int>(request.order()),
                        "HOTTEST_FIRST or COLDEST_FIRST");
  }
  const absl::StatusOr<mmu::Level> unit =
      ToLevel(request.granularity(), mmu::Level::k4K, "granularity");
  if (!unit.ok()) return unit.status();
  query.unit = *unit;
  query.never_young = request.exclude_never_young()
                          ? mmu::NeverYoungMemory::kExclude
                          : mmu::NeverYoungMemory::kInclude;
  if (request.page_size() < 0) {
    return WrongValue(mmu::Reason::kInvalidPageSize, "page_size",
                      request.page_size(), "at least 0");
  }
  query.limit = static_cast<size_t>(
      request.page_size() == 0 ? kDefaultRanges
                               : std::min(request.page_size(), kMaxRanges));
  const absl::StatusOr<absl::optional<mmu::HeatPosition>> from =
      ToPosition(request.page_token());
  if (!from.ok()) return from.status();
  query.from = *from;
  return query;
}

v1::ListHotRangesResponse ToResponse(const mmu::GenerationView& view,
                                     const mmu::HeatList& list) {
  v1::ListHotRangesResponse response;
  for (const mmu::HeatExtent& extent : list.extents) {
    v1::HotRange* range = response.add_ranges();
    *range->mutable_extent() = ToExtent(extent.range);
    range->set_slot(static_cast<int32_t>(extent.slot));
    range->set_generation(static_cast<int64_t>(extent.sequence));
  }
  if (list.next.has_value()) {
    response.set_next_page_token(MakePageToken(
        kList, absl::StrCat(list.next->sequence, ".", list.next->gfn.value())));
  }
  response.set_newest_generation(static_cast<int64_t>(view.newest));
  return response;
}

}  // namespace mmud
