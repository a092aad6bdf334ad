// The results of a comparison.

#ifndef CLIENT_COMPARISON_RESULT_H_
#define CLIENT_COMPARISON_RESULT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/guest_mmu.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {

// The throttled split before the log was enabled. A value.
struct SplitAhead {
  absl::Duration time;     // of the operation, by the daemon's clock
  int64_t page_count = 0;  // pages of 4 KiB that it covered
  v1::SplitCounts splits;
  v1::ThrottledTime throttled;
  v1::MmuCost cost;
};

// Enabling the log. A value.
struct Enabling {
  absl::Duration time;     // of the operation, by the daemon's clock
  v1::SplitCounts splits;  // by the eager split
  v1::MmuCost cost;
};

// The pass in which each vCPU accesses each page of its share once. A value.
struct DirtyPass {
  absl::Duration time;              // by the daemon's clock
  bool limit_reached = false;       // the pass ended at the time limit
  int64_t earlier_page_count = 0;   // pages that were dirty before it
  int64_t page_count = 0;           // pages that were dirty after it
  int64_t access_count = 0;         // as the daemon counted them
  int64_t write_count = 0;          // as the daemon counted them
  std::optional<bool> all_written;  // see AllWrittenAreDirty
};

// The result of one combination. A value.
struct CombinationResult {
  Combination combination;
  // The times of the passes of all runs, ascending.
  std::vector<absl::Duration> pass_times;
  std::optional<SplitAhead> split_ahead;  // LogPolicy::kThrottled only
  Enabling enabling;
  DirtyPass pass;

  // From before the split or the start of the log until the end of the pass.
  lab::v1::FaultCounts faults;
  v1::DurationHistogram stalls;  // of a sample of the faults
  // Remote TLB flushes that were requested, and those among them for which a
  // vCPU was running. Nothing if the daemon does not count them.
  std::optional<int64_t> flush_request_count;
  std::optional<int64_t> flush_count;
  // TLB invalidate instructions. Nothing unless FlushBy::kTlbi.
  std::optional<int64_t> tlbi_count;
  std::map<std::string, absl::Duration>  // by cause, all vCPUs together
      stall_times;

  v1::PageCounts mapped_before;  // before the split or the start of the log
  v1::PageCounts mapped_after;   // after the pass
  std::optional<v1::SplitCounts> fault_splits;  // see SplitsByFaults
};

// Whether the log lacks pages that the guest wrote.
inline bool LacksPages(const CombinationResult& result) {
  return result.pass.all_written == false;
}

// A value.
struct Comparison {
  Plan plan;
  std::vector<CombinationResult> results;  // one per combination, in order
};

// Of the runs of one combination, the one with the median time of the pass, or
// a run whose log lacks pages that the guest wrote, if there is one. Adds
// `pass_times`. REQUIRES: `runs` is not empty.
CombinationResult MedianOf(std::vector<CombinationResult> runs);

// The pages of 4 KiB that `split` covered per second; nothing if it took no
// time.
std::optional<int64_t> PagesPerSecond(const SplitAhead& split);

// The faults of all results together.
int64_t FaultCount(const CombinationResult& result);

// The huge mappings that the guest's faults split or dropped: those that are
// gone after the pass and that no other split counted. Nothing if that cannot
// be known: the guest changes its own tables, or more splits were counted than
// mappings are gone.
std::optional<v1::SplitCounts> SplitsByFaults(const GuestMmu& mmu,
                                              const CombinationResult& result);

// Whether each page that the guest wrote in the pass is dirty. Nothing if the
// number of these pages is not known: the guest has tables of its own, or the
// daemon's count of accesses is not that of the pass.
std::optional<bool> AllWrittenAreDirty(const PlanOptions& options,
                                       const Combination& combination,
                                       const DirtyPass& pass);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_RESULT_H_
