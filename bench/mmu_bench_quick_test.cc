// Runs the benchmark program on small inputs. No time makes the test fail.

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace {

std::string program;  // NOLINT: set by main

struct Output {
  std::string text;
  int status = 0;
};

Output RunProgram(const std::string& args) {
  Output output;
  FILE* pipe = popen((program + " " + args + " 2>/dev/null").c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  std::array<char, 4096> buffer;
  size_t n;
  while ((n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    output.text.append(buffer.data(), n);
  }
  output.status = pclose(pipe);
  return output;
}

TEST(MmuBenchTest, EveryRowIsMeasuredBesideItsLimit) {
  const Output output = RunProgram("--quick --json");
  ASSERT_EQ(output.status, 0);
  const nlohmann::json rows = nlohmann::json::parse(output.text, nullptr,
                                                    /*allow_exceptions=*/false);
  ASSERT_TRUE(rows.is_array()) << output.text;
  std::vector<std::string> names;
  for (const nlohmann::json& row : rows) {
    const std::string name = row.at("name");
    names.push_back(name);
    EXPECT_NE(row.at("unit"), "") << name;
    for (const char* field : {"value", "limit", "ratio", "goal"}) {
      EXPECT_GT(row.at(field).get<double>(), 0) << name << " " << field;
    }
    const double ratio =
        row.at("value").get<double>() / row.at("limit").get<double>();
    EXPECT_NEAR(row.at("ratio").get<double>() / ratio, 1, 0.01) << name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"fault_map_4k",
                                             "fault_fast",
                                             "tlb_hit",
                                             "enable_wp",
                                             "clear_dirty",
                                             "clear_dirty_1pct",
                                             "split_1g",
                                             "seal_sparse_0.1pct",
                                             "seal_sparse_1pct",
                                             "seal_sparse_10pct",
                                             "seal_runs_0.1pct",
                                             "seal_runs_1pct",
                                             "seal_runs_10pct",
                                             "acknowledge_sparse_1pct",
                                             "acknowledge_runs_1pct",
                                             "age_scan",
                                             "age_idle",
                                             "age_clustered_1pct",
                                             "age_strewn_1pct",
                                             "walk_under_ager",
                                             "walk_while_aged",
                                             "walk_against_scan",
                                             "memory",
                                             "fault_parallel",
                                             "lock_hold",
                                             "vcpu_stall_split",
                                             "vcpu_stall_enable",
                                             "shadow_fault",
                                             "shadow_fault_direct",
                                             "nested_fault",
                                             "guest_pte_write",
                                             "guest_pde_write",
                                             "sync_page",
                                             "invlpg",
                                             "nested_split",
                                             "clear_dirty_rmaps",
                                             "age_rmaps",
                                             "shadow_memory",
                                             "nested_memory",
                                             "s2_fault_map",
                                             "s2_split_1g",
                                             "s2_split_1g_bbm2",
                                             "s2_enable_wp",
                                             "s2_clear_dirty",
                                             "s2_age",
                                             "s2_memory"}));
}

TEST(MmuBenchTest, FilterChoosesRowsAndListNamesThem) {
  const Output output = RunProgram("--list --filter='^clear'");
  EXPECT_EQ(output.status, 0);
  EXPECT_EQ(output.text, "clear_dirty\nclear_dirty_1pct\nclear_dirty_rmaps\n");
}

TEST(MmuBenchTest, TableSaysWhetherTheGoalIsMet) {
  const Output output = RunProgram("--quick --filter='^memory'");
  ASSERT_EQ(output.status, 0);
  const std::vector<std::string> lines =
      absl::StrSplit(output.text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 2u);
  for (const char* word :
       {"name", "value", "unit", "limit", "ratio", "goal", "met"}) {
    EXPECT_NE(lines[0].find(word), std::string::npos) << word;
  }
  EXPECT_NE(lines[1].find("memory"), std::string::npos);
}

TEST(MmuBenchTest, WhatIsNotUnderstoodIsAnError) {
  EXPECT_NE(RunProgram("--quick --fliter=memory").status, 0);
  EXPECT_NE(RunProgram("--quick '--filter=('").status, 0);
  EXPECT_NE(RunProgram("--quick --filter=nothing_has_this_name").status, 0);
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) return 2;
  program = argv[1];
  return RUN_ALL_TESTS();
}
