// A copy of the counters that belong to the whole process and to no VM.
// stats/counter_table.h describes them.

#ifndef MMU_CORE_STATS_PROCESS_STATS_H_
#define MMU_CORE_STATS_PROCESS_STATS_H_

#include <array>
#include <cstdint>

namespace mmu {

// A value.
struct ProcessStatsSnapshot {
  struct Live;  // not defined: the table of counters reads none of these itself

  // Page tables of all MMUs that are out of the pool: [0] in use, [1] in their
  // grace period.
  std::array<uint64_t, 2> page_tables{};
  uint64_t page_tables_limit = 0;  // on their sum; 0: no limit
  uint64_t page_table_waits = 0;   // GracePeriodWaits (sync/refill.h)
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_PROCESS_STATS_H_
