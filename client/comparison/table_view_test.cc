#include "client/comparison/table_view.h"

#include <string>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/comparison/example_test_util.h"
#include "client/comparison/result.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(TableViewTest, RowsArePoliciesSideBySide) {
  EXPECT_EQ(ViewAsTables(ExampleComparison()),
            R"(tdp, 8 MiB of memory on 2M pages, seed 1
Each row is one guest. Rows with the same VCPUS and WRITES make the same accesses and
differ only in the policy. Less is better in each column of times.

VCPUS  WRITES  POLICY     SPLIT AHEAD  ENABLE      DIRTY     P50 <=     P99 <=   P99.9 <=  VCPU STALL
    2    100%  lazy                 -  250 us    12.0 ms    1.00 us    4.00 us    16.0 us     30.0 us
    2    100%  eager                -  250 us    12.0 ms  > 16.0 us  > 16.0 us  > 16.0 us     30.0 us
    2    100%  throttled      4.00 ms  250 us  > 12.0 ms          -          -          -     30.0 us

VCPUS  WRITES  POLICY     DIRTY PAGES  FAULTS  FLUSHES  AHEAD  AT ENABLE  BY FAULTS  PAGES/S
    2    100%  lazy             2,048   2,048        3      -          0          4        -
    2    100%  eager            2,048   2,048        -      -          4          0        -
    2    100%  throttled        1,024   2,048        3      4          0          -  512,000

2 vCPUs, 100% writes, throttled: the pass ended at the time limit, after 12.0 ms; give a
  longer --time-limit
2 vCPUs, 100% writes, throttled: the number of dirty pages, 1,024, is not that of the
  pages that the guest wrote
)");
}

TEST(TableViewTest, NoLineIsLongerThan100Columns) {
  Comparison comparison = ExampleComparison();
  for (CombinationResult& result : comparison.results) {
    result.combination.vcpu_count = 1024;
    result.combination.write_fraction = 0.123;
    result.enabling.time = absl::Milliseconds(999);
    result.pass.time = absl::Milliseconds(999);
    result.pass.page_count = 268'435'456;
    result.faults.set_fast_count(268'435'456);
    result.enabling.splits.set_split_2m_count(524'288);
    result.stall_times["lock"] = absl::Milliseconds(999);
    result.pass.limit_reached = false;
    result.pass.all_written.reset();
  }
  for (const absl::string_view line :
       absl::StrSplit(ViewAsTables(comparison), '\n')) {
    EXPECT_LE(line.size(), 100u) << line;
  }
}

}  // namespace
}  // namespace mmud::client
