// Which counters of a VM have ever been other than 0. A counter that no stress
// run moves belongs to code that no stress run reaches.

#ifndef TESTS_STRESS_MOVED_COUNTERS_H_
#define TESTS_STRESS_MOVED_COUNTERS_H_

#include <set>
#include <string>
#include <vector>

#include "mmu_core/stats/vm_stats.h"

namespace mmu::stress {

// Covers every row of stats/counter_table.h that belongs to a VM or to its
// vCPUs. A row with labels has moved if one of its values has. A value.
class MovedCounters {
 public:
  // Adds the counters that are not 0 in `stats`. A gauge has to be seen while
  // it is not 0, so this is called more than once for each VM.
  void See(const VmStatsSnapshot& stats);
  void Add(const MovedCounters& other);

  // The names of the others, in the order of the table. A counter of the vCPUs
  // has the prefix "vcpu.".
  std::vector<std::string> Unmoved() const;

 private:
  std::set<std::string> moved_;
};

}  // namespace mmu::stress

#endif  // TESTS_STRESS_MOVED_COUNTERS_H_
