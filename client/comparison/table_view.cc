#include "client/comparison/table_view.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/comparison/columns.h"
#include "client/text/table.h"
#include "client/text/wrap.h"

namespace mmud::client {
namespace {

constexpr int kWidth = 90;

std::string TableOf(const Comparison& comparison,
                    const std::vector<ResultColumn>& rest) {
  std::vector<ResultColumn> columns = NameColumns();
  columns.insert(columns.end(), rest.begin(), rest.end());
  std::vector<Table::Column> titles;
  for (const ResultColumn& column : columns) {
    titles.push_back({column.title, column.align});
  }
  Table table(titles);
  for (const CombinationResult& result : comparison.results) {
    std::vector<std::string> cells;
    for (const ResultColumn& column : columns) {
      cells.push_back(column.cell(result));
    }
    table.AddRow(cells);
  }
  return table.ToString();
}

}  // namespace

std::string ViewAsTables(const Comparison& comparison) {
  const std::string warnings = Warnings(comparison);
  std::string text = absl::StrCat(
      DescribeGuests(comparison.plan), "\n", Wrap(HowToRead(), kWidth, 0),
      "\n\n", TableOf(comparison, TimeColumns()), "\n",
      TableOf(comparison, WorkColumns(*comparison.plan.options.mmu)));
  if (!warnings.empty()) absl::StrAppend(&text, "\n");
  for (const absl::string_view line :
       absl::StrSplit(warnings, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, Wrap(line, kWidth, 2), "\n");
  }
  return text;
}

}  // namespace mmud::client
