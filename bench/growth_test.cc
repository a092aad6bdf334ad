#include "bench/growth.h"

#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

// Checks only that every cell is a number: RunGrowth itself verifies that the
// work was done.
TEST(GrowthTest, EveryCellIsANumber) {
  std::ostringstream out;
  RunGrowth({.sizes_gib = {1, 2},
             .slots = {100, 200},
             .vcpus = {1, 3},
             .pages_per_vcpu = 512},
            out);
  int rows = 0;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(out.str(), '\n'))) {
    if (!absl::StartsWith(line, "| ") || line[2] > '9') continue;
    ++rows;
    std::vector<std::string> cells = absl::StrSplit(line, " | ");
    EXPECT_TRUE(cells.size() == 8 || cells.size() == 4) << line;
    for (size_t i = 1; i < cells.size(); ++i) {
      double number = 0;
      const std::vector<std::string> words = absl::StrSplit(cells[i], ' ');
      EXPECT_TRUE(absl::SimpleAtod(words[0], &number) && number > 0) << line;
    }
  }
  EXPECT_EQ(rows, 6);
}

}  // namespace
}  // namespace mmu::bench
