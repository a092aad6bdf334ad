#include "client/text/table.h"

#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(TableTest, ColumnsAreAsWideAsTheirLongestCell) {
  Table table({{"VM"}, {"PAGES", Align::kRight}, {"STATE"}});
  table.AddRow({"vms/alpha", "7", "ready"});
  table.AddRow({"vms/b", "1,234,567", ""});
  EXPECT_EQ(table.ToString(),
            "VM             PAGES  STATE\n"
            "vms/alpha          7  ready\n"
            "vms/b      1,234,567\n");
}

TEST(TableTest, EmptyTableHasItsTitles) {
  Table table({{"A"}, {"B"}});
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(table.ToString(), "A  B\n");
}

TEST(TableTest, MissingCellsAreEmpty) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"x"});
  EXPECT_EQ(table.ToString(), "A  B\nx\n");
}

TEST(TableTest, CountsCharactersNotBytes) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"µs", "1"});
  table.AddRow({"ms", "2"});
  EXPECT_EQ(table.ToString(), "A   B\nµs  1\nms  2\n");
}

TEST(KeyValuesTest, ValuesAreBelowEachOther) {
  KeyValues values;
  values.Add("name", "vms/alpha");
  values.Add("etag", "");
  values.Add("memory size", "4 GiB");
  EXPECT_EQ(values.ToString(),
            "name:         vms/alpha\n"
            "etag:\n"
            "memory size:  4 GiB\n");
}

}  // namespace
}  // namespace mmud::client
