// The common parts of tests of the scenarios' output.

#ifndef BENCH_SCENARIO_TEST_UTIL_H_
#define BENCH_SCENARIO_TEST_UTIL_H_

#include <regex>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace mmu::bench {

// A regular expression for a time as scenarios print it.
inline constexpr char kTime[] = "[0-9]+\\.[0-9]{9}s";

// Expects that each line of `text` matches its pattern, in order.
inline void ExpectLines(const std::string& text,
                        const std::vector<std::string>& patterns) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  ASSERT_EQ(lines.back(), "") << text;
  lines.pop_back();
  ASSERT_EQ(lines.size(), patterns.size()) << text;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_TRUE(std::regex_match(lines[i], std::regex(patterns[i])))
        << lines[i] << "\n"
        << patterns[i];
  }
}

}  // namespace mmu::bench

#endif  // BENCH_SCENARIO_TEST_UTIL_H_
