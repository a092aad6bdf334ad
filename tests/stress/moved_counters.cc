#include "tests/stress/moved_counters.h"

#include <string>
#include <utility>
#include <vector>

#include "mmu_core/stats/counter_table.h"

namespace mmu::stress {
namespace {

template <typename Snapshot>
bool IsMoved(const CounterRow<Snapshot>& row, const Snapshot& stats) {
  bool moved = false;
  row.ForEach([&](const CounterIndex& index) {
    moved |= row.value != nullptr ? row.value(stats, index) != 0
                                  : row.histogram(stats, index).count != 0;
  });
  return moved;
}

// Calls fn(name, moved) for each row.
template <typename Fn>
void ForEachCounter(const VmStatsSnapshot& stats, const Fn& fn) {
  for (const VmCounterRow& row : VmCounterRows()) {
    fn(std::string(row.name), IsMoved(row, stats));
  }
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    fn("vcpu." + std::string(row.name), IsMoved(row, stats.vcpus));
  }
}

}  // namespace

void MovedCounters::See(const VmStatsSnapshot& stats) {
  ForEachCounter(stats, [this](std::string name, bool moved) {
    if (moved) moved_.insert(std::move(name));
  });
}

void MovedCounters::Add(const MovedCounters& other) {
  moved_.insert(other.moved_.begin(), other.moved_.end());
}

std::vector<std::string> MovedCounters::Unmoved() const {
  std::vector<std::string> names;
  ForEachCounter({}, [&](std::string name, bool) {
    if (moved_.count(name) == 0) names.push_back(std::move(name));
  });
  return names;
}

}  // namespace mmu::stress
