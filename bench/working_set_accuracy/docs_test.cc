// The tables of the page are those that the program measures now.

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_split.h"
#include "bench/working_set_accuracy/markdown_table.h"
#include "bench/working_set_accuracy/tables.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

TEST(WorkingSetAccuracyDocsTest, ThePageHasTheTablesThatTheProgramMakes) {
  const auto tables = MakeAccuracyTables("traces");
  ASSERT_TRUE(tables.ok()) << tables.status();
  std::stringstream page;
  page << std::ifstream("docs/working-set-accuracy.md").rdbuf();
  const absl::StatusOr<std::string> text = WithTables(page.str(), *tables);
  ASSERT_TRUE(text.ok()) << text.status();
  const std::vector<std::string> is = absl::StrSplit(page.str(), '\n');
  const std::vector<std::string> should = absl::StrSplit(*text, '\n');
  const auto [line, measured] =
      std::mismatch(is.begin(), is.end(), should.begin(), should.end());
  EXPECT_EQ(line == is.end() ? "" : *line,
            measured == should.end() ? "" : *measured)
      << "the measurement has changed: run the first command of the page, and "
         "see whether its text still holds";
  EXPECT_EQ(is.size(), should.size());
}

}  // namespace
}  // namespace mmu::bench
