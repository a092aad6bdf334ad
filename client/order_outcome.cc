#include "client/order_outcome.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/text/table.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

// The columns after the workload.
std::vector<std::string> Cells(const OrderOutcome& outcome) {
  return {outcome.order,
          FormatCount(outcome.sent_page_count),
          FormatCount(outcome.resent_page_count),
          FormatBytes(outcome.sent_bytes),
          FormatTime(outcome.migration_time),
          FormatTime(outcome.downtime),
          absl::StrCat(outcome.round_count),
          outcome.converged ? "yes" : "no",
          outcome.equal ? "yes" : "NO"};
}

std::string MarkdownRow(const std::vector<std::string>& cells) {
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

}  // namespace

std::string OutcomeTable(const std::vector<OrderOutcome>& outcomes) {
  Table table({{"ORDER"},
               {"PAGES SENT", Align::kRight},
               {"AGAIN", Align::kRight},
               {"SENT", Align::kRight},
               {"TIME", Align::kRight},
               {"DOWNTIME", Align::kRight},
               {"ROUNDS", Align::kRight},
               {"CONVERGED", Align::kRight},
               {"EQUAL", Align::kRight}});
  for (const OrderOutcome& outcome : outcomes) table.AddRow(Cells(outcome));
  return table.ToString();
}

std::string OutcomeMarkdownHead() {
  return "| workload | order | pages sent | sent again | contents | time | "
         "downtime | rounds | converged | equal |\n"
         "|---|---|---|---|---|---|---|---|---|---|\n";
}

std::string OutcomeMarkdown(const std::vector<OrderOutcome>& outcomes) {
  std::string text;
  for (const OrderOutcome& outcome : outcomes) {
    std::vector<std::string> cells = Cells(outcome);
    cells.insert(cells.begin(), outcome.workload);
    absl::StrAppend(&text, MarkdownRow(cells));
  }
  return text;
}

std::string OutcomeGain(const std::vector<OrderOutcome>& outcomes) {
  if (outcomes.size() < 2) return "";
  const OrderOutcome& without = outcomes.front();
  const OrderOutcome& with = outcomes.back();
  if (without.resent_page_count == 0) {
    return absl::StrCat(without.order, " sends no page again\n");
  }
  const double fewer = 1 - static_cast<double>(with.resent_page_count) /
                               static_cast<double>(without.resent_page_count);
  return absl::StrCat(with.order, " sends ", std::lround(std::abs(fewer) * 100),
                      " % ", fewer < 0 ? "more" : "fewer", " pages again than ",
                      without.order, ", and takes ",
                      FormatTime(with.migration_time), " instead of ",
                      FormatTime(without.migration_time), "\n");
}

}  // namespace mmud::client
