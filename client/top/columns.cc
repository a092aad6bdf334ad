#include "client/top/columns.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/text/printable.h"
#include "client/text/table.h"
#include "client/top/marks.h"
#include "client/top/model.h"
#include "client/top/sample.h"
#include "client/top/times.h"

namespace mmud::client {
namespace {

constexpr char kUnknown[] = "-";

// The columns in the order in which they stand. A column with a smaller rank is
// kept on a narrower screen.
struct Column {
  PlacedColumn placed;
  int rank;
};

// Names of causes that fit into eight columns.
std::string ShortCause(const std::string& cause) {
  static const auto* const names =
      new std::map<std::string, std::string>{{"write_protect", "protect"},
                                             {"invalidation", "tlbi"},
                                             {"ring_full", "ring"}};
  const auto found = names->find(cause);
  return found == names->end() ? cause : found->second;
}

std::string StateOf(const VmSample& vm) {
  return vm.is_deleting ? "deleting" : vm.vcpu_state;
}

std::string LeaseOf(const VmSample& vm) {
  if (!vm.log) return kUnknown;
  for (const ConditionSample& condition : vm.conditions) {
    if (condition.type == "log_abandoned") return "ended";
  }
  return TimeOfDay(vm.log->lease_expire_time);
}

std::string Rate(const VmTrend& vm, double VmRates::*rate) {
  return vm.rates ? CompactNumber(*vm.rates.*rate) : kUnknown;
}

std::string Pages(const VmTrend& vm, int64_t count) {
  return vm.sample.log ? CompactNumber(static_cast<double>(count)) : kUnknown;
}

int64_t LeftOf(const VmTrend& vm) {
  return vm.sample.log ? vm.sample.log->left_page_count() : 0;
}

int64_t InFlightOf(const VmTrend& vm) {
  return vm.sample.log ? vm.sample.log->in_flight_page_count : 0;
}

double LockRatio(const VmTrend& vm) {
  if (!vm.rates) return 0;
  const auto lock = vm.rates->stalls.find("lock");
  return lock == vm.rates->stalls.end() ? 0 : lock->second;
}

const std::vector<Column>& AllColumns() {
  using Vm = const VmTrend&;
  static const auto* const columns = new std::vector<Column>{
      {{"VM", Align::kLeft, 12,
        [](Vm vm, int, Charset) { return vm.sample.id; }, SortKey::kName, true},
       0},
      {{"VCPUS", Align::kRight, 5,
        [](Vm vm, int, Charset) { return absl::StrCat(vm.sample.vcpu_count); }},
       12},
      {{"STATE", Align::kLeft, 9,
        [](Vm vm, int, Charset) { return StateOf(vm.sample); }},
       6},
      {{"DIRTY/S", Align::kRight, 7,
        [](Vm vm, int, Charset) { return Rate(vm, &VmRates::dirty_pages); },
        SortKey::kDirty, true},
       1},
      {{"TREND", Align::kLeft, 10,
        [](Vm vm, int width, Charset charset) {
          return Sparkline(vm.dirty_pages, width, charset);
        }},
       5},
      {{"LEFT", Align::kRight, 6,
        [](Vm vm, int, Charset) { return Pages(vm, LeftOf(vm)); },
        SortKey::kLeft, true},
       2},
      {{"FLIGHT", Align::kRight, 6,
        [](Vm vm, int, Charset) { return Pages(vm, InFlightOf(vm)); },
        SortKey::kInFlight, true},
       4},
      {{"FAULT/S", Align::kRight, 7,
        [](Vm vm, int, Charset) { return Rate(vm, &VmRates::faults); },
        SortKey::kFaults, true},
       7},
      {{"STALL", Align::kRight, 6,
        [](Vm vm, int, Charset) {
          return vm.rates ? CompactShare(vm.rates->stall_ratio) : kUnknown;
        },
        SortKey::kStall, true},
       3},
      {{"CAUSE", Align::kLeft, 8,
        [](Vm vm, int, Charset) {
          return vm.rates ? ShortCause(vm.rates->worst_stall()) : kUnknown;
        }},
       8},
      {{"LOCK", Align::kRight, 6,
        [](Vm vm, int, Charset) {
          return vm.rates ? CompactShare(LockRatio(vm)) : kUnknown;
        },
        SortKey::kLock, true},
       9},
      {{"LEASE", Align::kLeft, 8,
        [](Vm vm, int, Charset) { return LeaseOf(vm.sample); }},
       10},
      {{"OWNER", Align::kLeft, 12,
        [](Vm vm, int, Charset) {
          return vm.sample.log ? Printable(vm.sample.log->owner) : kUnknown;
        }},
       11},
  };
  return *columns;
}

// The number that `key` sorts by, descending.
double NumberOf(const VmTrend& vm, SortKey key) {
  switch (key) {
    case SortKey::kName:
      return 0;
    case SortKey::kDirty:
      return vm.rates ? vm.rates->dirty_pages : 0;
    case SortKey::kLeft:
      return static_cast<double>(LeftOf(vm));
    case SortKey::kInFlight:
      return static_cast<double>(InFlightOf(vm));
    case SortKey::kFaults:
      return vm.rates ? vm.rates->faults : 0;
    case SortKey::kStall:
      return vm.rates ? vm.rates->stall_ratio : 0;
    case SortKey::kLock:
      return LockRatio(vm);
  }
  return 0;
}

}  // namespace

const std::map<std::string, SortKey>& SortKeys() {
  static const auto* const keys = new std::map<std::string, SortKey>{
      {"name", SortKey::kName},     {"dirty", SortKey::kDirty},
      {"left", SortKey::kLeft},     {"in-flight", SortKey::kInFlight},
      {"faults", SortKey::kFaults}, {"stall", SortKey::kStall},
      {"lock", SortKey::kLock}};
  return *keys;
}

std::string NameOf(SortKey key) {
  for (const auto& [name, value] : SortKeys()) {
    if (value == key) return name;
  }
  return "";
}

std::vector<const VmTrend*> Sorted(const TopModel& model, SortKey key,
                                   SortOrder order) {
  std::vector<const VmTrend*> vms;
  for (const VmTrend& vm : model.vms()) vms.push_back(&vm);
  std::stable_sort(vms.begin(), vms.end(),
                   [key](const VmTrend* a, const VmTrend* b) {
                     return NumberOf(*a, key) > NumberOf(*b, key);
                   });
  if (order == SortOrder::kReversed) std::reverse(vms.begin(), vms.end());
  return vms;
}

std::vector<PlacedColumn> ColumnsFor(int width) {
  const std::vector<Column>& all = AllColumns();
  // The columns up to a rank fit, and no column of a higher one is shown, so
  // that a wider screen only ever adds columns.
  std::vector<const Column*> by_rank;
  for (const Column& column : all) by_rank.push_back(&column);
  std::sort(by_rank.begin(), by_rank.end(),
            [](const Column* a, const Column* b) { return a->rank < b->rank; });
  int used = -1;
  int last_rank = -1;
  for (const Column* column : by_rank) {
    if (last_rank >= 0 && used + 1 + column->placed.width > width) break;
    used += 1 + column->placed.width;
    last_rank = column->rank;
  }
  std::vector<PlacedColumn> placed;
  for (const Column& column : all) {
    if (column.rank <= last_rank) placed.push_back(column.placed);
  }
  // A name of up to 24 columns, then a longer past.
  for (const auto& [title, most] :
       {std::pair<const char*, int>{"VM", 24}, {"TREND", 40}}) {
    for (PlacedColumn& column : placed) {
      if (column.title != title) continue;
      const int more = std::clamp(width - used, 0, most - column.width);
      column.width += more;
      used += more;
    }
  }
  return placed;
}

}  // namespace mmud::client
