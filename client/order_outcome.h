// What a migration with one order of sending came to, beside other orders.

#ifndef CLIENT_ORDER_OUTCOME_H_
#define CLIENT_ORDER_OUTCOME_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace mmud::client {

// A value.
struct OrderOutcome {
  std::string workload;  // what the guest ran
  std::string order;     // ToString(SendOrder)
  int64_t sent_page_count = 0;
  int64_t resent_page_count = 0;  // of them, pages sent before
  int64_t sent_bytes = 0;
  absl::Duration
      migration_time;       // from the log's start to the last round's end
  absl::Duration downtime;  // estimated
  int64_t round_count = 0;  // with the baseline and the last one
  bool converged = false;
  bool equal = false;  // the copy and guest memory
};

// A table for a terminal, without the workloads.
std::string OutcomeTable(const std::vector<OrderOutcome>& outcomes);

// The rows of a Markdown table, and its head.
std::string OutcomeMarkdownHead();
std::string OutcomeMarkdown(const std::vector<OrderOutcome>& outcomes);

// "coldest-first sends 81 % fewer pages again than ascending": the last outcome
// compared with the first one. "" without two outcomes.
std::string OutcomeGain(const std::vector<OrderOutcome>& outcomes);

}  // namespace mmud::client

#endif  // CLIENT_ORDER_OUTCOME_H_
