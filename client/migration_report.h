// Report of a run of the reference controller, as text and as JSON.

#ifndef CLIENT_MIGRATION_REPORT_H_
#define CLIENT_MIGRATION_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/guest_comparison.h"
#include "client/order_outcome.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// One pass over pages: the baseline, a round, or the last one. A value.
struct MigrationRound {
  std::string name;                     // "baseline", "1", "2", ..., "final"
  int64_t epoch = 0;                    // of the dirty log, that it harvested
  int64_t page_count = 0;               // pages copied
  int64_t zero_page_count = 0;          // among them, sent as marks
  int64_t sent_bytes = 0;               // contents on the wire
  int64_t acknowledged_page_count = 0;  // of earlier rounds, by its seal
  int64_t remaining_page_count = 0;  // open or sealed when the round was over
  int64_t in_flight_page_count = 0;  // copied, not acknowledged by then
  absl::Duration wall_time;          // harvest, copy, and waiting for the link
  absl::Duration harvest_time;       // seal and clear
  absl::Duration transfer_time;      // sent_bytes at the bandwidth
  absl::Duration vcpu_stall;         // all vCPUs together
  int64_t resume_count = 0;          // broken streams that were gone on with
  v1::MmuCost cost;                  // of seal and clear
};

// A value.
struct MigrationReport {
  std::string vm;
  std::string mmu = "tdp";  // which of Vm.mmu is set
  std::string trace;
  int64_t memory_bytes = 0;
  int32_t vcpu_count = 0;
  int64_t bandwidth_bytes_per_second = 0;
  absl::Duration downtime_target;

  std::string log_id;  // of the dirty log
  std::string owner;
  std::string former_owner;  // "" unless the log was taken over

  v1::PageCounts pages_before;  // before the split
  v1::PageCounts pages_after_split;
  v1::PageCounts pages_at_end;  // after huge pages were recovered

  v1::SplitCounts splits;
  absl::Duration split_time;
  absl::Duration split_throttled;  // of it, waiting as the throttle says
  v1::MmuCost split_cost;
  v1::MmuCost start_cost;  // of switching the log on

  std::vector<MigrationRound> rounds;
  bool converged = false;
  absl::Duration estimated_downtime;  // final transfer at the bandwidth, and
                                      // the last harvest

  std::string order;              // of the pages in a round
  std::string heat_problem;       // why the order may be wrong; "" if it is not
  int64_t sent_page_count = 0;    // in all rounds
  int64_t resent_page_count = 0;  // of them, pages sent before
  absl::Duration learning_time;   // waiting until the order was known
  absl::Duration
      migration_time;  // from the log's start to the last round's end

  int64_t young_page_count = 0;
  int64_t old_page_count = 0;
  absl::Duration young_since;  // time since the pages were aged

  int64_t access_count = 0;  // of the guest
  int64_t write_count = 0;
  int64_t fault_count = 0;

  int64_t compared_bytes = 0;
  bool equal = false;
  int64_t different_page_count = 0;
  std::vector<PageDifference> differences;  // the first few

  // Other, shorter migrations, to compare orders of sending. May be empty.
  std::vector<OrderOutcome> orders;

  absl::Duration total_time;
  std::string metrics_address;  // "" if not known
};

// Contents sent in all rounds.
int64_t SentBytes(const MigrationReport& report);

// Several paragraphs and tables, without the verdict.
std::string ToText(const MigrationReport& report);

// The last lines: memory and copy are equal, or the pages that differ.
std::string Verdict(const MigrationReport& report);

// One JSON object; times in seconds, sizes in bytes, as the names say. Its
// field "schema" is "mmud.migration_report/3".
std::string ToJson(const MigrationReport& report);

}  // namespace mmud::client

#endif  // CLIENT_MIGRATION_REPORT_H_
