#include "client/order_outcome.h"

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

std::vector<OrderOutcome> Example() {
  OrderOutcome without;
  without.workload = "zipf";
  without.order = "ascending";
  without.sent_page_count = 40'000;
  without.resent_page_count = 10'000;
  without.sent_bytes = 3 << 20;
  without.migration_time = absl::Seconds(3);
  without.downtime = absl::Milliseconds(25);
  without.round_count = 7;
  without.equal = true;
  OrderOutcome with = without;
  with.order = "coldest-first";
  with.resent_page_count = 2'500;
  with.migration_time = absl::Seconds(2);
  with.converged = true;
  return {without, with};
}

TEST(OrderOutcomeTest, TableHasARowForEachOrder) {
  EXPECT_EQ(
      OutcomeTable(Example()),
      "ORDER          PAGES SENT   AGAIN   SENT    TIME  DOWNTIME  ROUNDS  "
      "CONVERGED  EQUAL\n"
      "ascending          40,000  10,000  3 MiB  3.00 s   25.0 ms       7  "
      "       no    yes\n"
      "coldest-first      40,000   2,500  3 MiB  2.00 s   25.0 ms       7  "
      "      yes    yes\n");
}

TEST(OrderOutcomeTest, MarkdownNamesTheWorkloadToo) {
  EXPECT_EQ(
      OutcomeMarkdown({Example()[1]}),
      "| zipf | coldest-first | 40,000 | 2,500 | 3 MiB | 2.00 s | 25.0 ms | "
      "7 | yes | yes |\n");
}

TEST(OrderOutcomeTest, GainMayBeALoss) {
  std::vector<OrderOutcome> outcomes = Example();
  EXPECT_EQ(OutcomeGain(outcomes),
            "coldest-first sends 75 % fewer pages again than ascending, and "
            "takes 2.00 s instead of 3.00 s\n");
  outcomes[1].resent_page_count = 11'000;
  EXPECT_EQ(OutcomeGain(outcomes),
            "coldest-first sends 10 % more pages again than ascending, and "
            "takes 2.00 s instead of 3.00 s\n");
  outcomes[0].resent_page_count = 0;
  EXPECT_EQ(OutcomeGain(outcomes), "ascending sends no page again\n");
  EXPECT_EQ(OutcomeGain({outcomes[0]}), "");
}

}  // namespace
}  // namespace mmud::client
