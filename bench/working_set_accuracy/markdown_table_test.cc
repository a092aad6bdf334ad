#include "bench/working_set_accuracy/markdown_table.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

using ::testing::HasSubstr;

const NamedTable kTable = {.name = "one", .rows = {{"a", "b"}, {"1", "2"}}};

TEST(MarkdownTableTest, HasALineForEachRow) {
  EXPECT_EQ(kTable.ToMarkdown(), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
}

TEST(MarkdownTableTest, PartsArePerCent) {
  EXPECT_EQ(PerCent(std::nullopt), "-");
  EXPECT_EQ(PerCent(1), "100.0");
  EXPECT_EQ(PerCent(0.1234), "12.3");
  EXPECT_EQ(PerCent(-0.1234, Sign::kYes), "-12.3");
  EXPECT_EQ(PerCent(0.1234, Sign::kYes), "+12.3");
  EXPECT_EQ(PerCent(-0.0004, Sign::kYes), "0.0");
  EXPECT_EQ(PerCent(0.0004, Sign::kYes), "0.0");
}

TEST(MarkdownTableTest, NumbersHaveCommas) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(12345678), "12,345,678");
}

TEST(MarkdownTableTest, ATableReplacesTheOneThatWasThere) {
  const std::string page =
      "Text.\n\n<!-- table: one -->\n\n"
      "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nMore.\n";
  EXPECT_EQ(WithTables(page, {kTable}).value(), page);
  EXPECT_EQ(
      WithTables("Text.\n\n<!-- table: one -->\nMore.\n", {kTable}).value(),
      page);
  EXPECT_EQ(
      WithTables("Text.\n\n<!-- table: one -->\n| old |\n| more |\n\nMore.\n",
                 {kTable})
          .value(),
      page);
}

TEST(MarkdownTableTest, ThePageNamesEachTableOnce) {
  const auto error = [](const std::string& page) {
    const absl::Status status = WithTables(page, {kTable}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error("Text.\n"), HasSubstr("does not name the table 'one'"));
  EXPECT_THAT(error("<!-- table: one -->\n<!-- table: two -->\n"),
              HasSubstr("the table 'two'"));
  EXPECT_THAT(error("<!-- table: one -->\n<!-- table: one -->\n"),
              HasSubstr("'one' twice"));
}

}  // namespace
}  // namespace mmu::bench
