#include "bench/working_set_accuracy/markdown_table.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "mmu_core/base/check.h"

namespace mmu::bench {
namespace {

// The name in a line that names a table.
std::optional<std::string> NameIn(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, "<!-- table: ") ||
      !absl::ConsumeSuffix(&line, " -->")) {
    return std::nullopt;
  }
  return std::string(line);
}

std::string Line(const std::vector<std::string>& cells) {
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

}  // namespace

std::string NamedTable::ToMarkdown() const {
  MMU_CHECK(!rows.empty());
  const size_t columns = rows[0].size();
  std::string text = Line(rows[0]);
  text += Line(std::vector<std::string>(columns, "---"));
  for (size_t i = 1; i < rows.size(); ++i) {
    MMU_CHECK(rows[i].size() == columns);
    text += Line(rows[i]);
  }
  return text;
}

std::string PerCent(std::optional<double> part, Sign sign) {
  if (!part.has_value()) return "-";
  // 0 has no sign, nor has what is rounded to it.
  const double rounded = std::round(*part * 1000) / 10 + 0.0;
  if (sign == Sign::kYes && rounded > 0)
    return absl::StrFormat("+%.1f", rounded);
  return absl::StrFormat("%.1f", rounded);
}

std::string WithCommas(uint64_t number) {
  std::string text = absl::StrCat(number);
  for (size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

absl::StatusOr<std::string> WithTables(const std::string& page,
                                       const std::vector<NamedTable>& tables) {
  std::map<std::string, std::string> left;
  for (const NamedTable& table : tables) left[table.name] = table.ToMarkdown();
  std::string text;
  bool after_name = false;
  for (const absl::string_view line :
       absl::StrSplit(absl::StripSuffix(page, "\n"), '\n')) {
    if (after_name && (line.empty() || absl::StartsWith(line, "|"))) continue;
    if (after_name) absl::StrAppend(&text, "\n");
    after_name = false;
    absl::StrAppend(&text, line, "\n");
    const std::optional<std::string> name = NameIn(line);
    if (!name.has_value()) continue;
    const auto table = left.find(*name);
    if (table == left.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the page names the table '", *name,
                       "' twice, or there is no such table"));
    }
    absl::StrAppend(&text, "\n", table->second);
    left.erase(table);
    after_name = true;
  }
  if (!left.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the page does not name the table '", left.begin()->first,
        "'; add the line <!-- table: ", left.begin()->first, " -->"));
  }
  return text;
}

}  // namespace mmu::bench
