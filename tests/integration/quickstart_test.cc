// Runs the quickstart with each MMU. At the end guest memory and its copy are
// equal.

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/child_process.h"

namespace mmud::integration {
namespace {

using Json = nlohmann::json;

constexpr int64_t kPageBytes = 4096;

class QuickstartTest : public ::testing::TestWithParam<const char*> {};

TEST_P(QuickstartTest, EndsWithEqualCopies) {
  const ScratchDirectory directory;
  const std::string file = directory.File("report.json");
  const ProgramResult result =
      RunProgram({"client/quickstart/quickstart", "--mmud=server/mmud",
                  "--trace-dir=traces", "--memory=256MiB",
                  absl::StrCat("--mmu=", GetParam()), "--json=" + file},
                 directory.File("quickstart"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              ::testing::EndsWith(
                  "guest memory and copy are equal: 268435456 bytes\n"));

  const Json report = Json::parse(ReadFile(file), nullptr, false);
  ASSERT_TRUE(report.is_object()) << ReadFile(file);
  const std::string owner = report["dirty_log"].value("owner", "");
  EXPECT_THAT(owner, ::testing::StartsWith("quickstart, pid "));
  EXPECT_EQ(report["dirty_log"].value("former_owner", "?"), "");
  EXPECT_THAT(result.out, ::testing::HasSubstr(absl::StrCat(
                              report["dirty_log"].value("log_id", "none"),
                              ", owned by ", owner, "\n")));
  const Json& rounds = report["rounds"];
  ASSERT_GE(rounds.size(), 3u);
  int64_t epoch = 0;
  int64_t in_flight = 0;
  for (const Json& round : rounds) {
    const std::string name = round.value("name", "");
    EXPECT_GT(round.value("epoch", int64_t{0}), epoch) << name;
    epoch = round.value("epoch", int64_t{0});
    // The seal of each round acknowledges the pages that the round before left
    // in flight.
    EXPECT_EQ(round.value("acknowledged_page_count", int64_t{-1}), in_flight)
        << name;
    in_flight = round.value("in_flight_page_count", int64_t{-1});
    if (name == "final") {
      EXPECT_EQ(in_flight, 0);
    } else {
      EXPECT_EQ(in_flight, round.value("page_count", int64_t{0})) << name;
    }
  }
  EXPECT_EQ(rounds.back().value("name", ""), "final");

  const Json& sent = report["sent"];
  EXPECT_EQ(sent.value("order", ""), "ascending");
  EXPECT_EQ(sent.value("heat_problem", "?"), "");
  int64_t page_count = 0;
  for (const Json& round : rounds) {
    page_count += round.value("page_count", int64_t{0});
  }
  EXPECT_EQ(sent.value("page_count", int64_t{-1}), page_count);
  // Each page was sent at least once.
  EXPECT_EQ(sent.value("resent_page_count", int64_t{-1}),
            page_count - 268435456 / kPageBytes);
  ASSERT_EQ(report["orders"].size(), 2u);
  EXPECT_EQ(report["orders"][0].value("order", ""), "ascending");
  EXPECT_EQ(report["orders"][1].value("order", ""), "coldest-first");
  for (const Json& outcome : report["orders"]) {
    EXPECT_TRUE(outcome.value("equal", false)) << outcome;
  }
  EXPECT_EQ(rounds.front().value("in_flight_page_count", int64_t{0}),
            268435456 / kPageBytes);
}

INSTANTIATE_TEST_SUITE_P(Mmus, QuickstartTest,
                         ::testing::Values("tdp", "tdp_shadow", "shadow",
                                           "nested", "stage2"));

}  // namespace
}  // namespace mmud::integration
