// Tables in Markdown, and their places in a page.

#ifndef BENCH_WORKING_SET_ACCURACY_MARKDOWN_TABLE_H_
#define BENCH_WORKING_SET_ACCURACY_MARKDOWN_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mmu::bench {

// A value.
struct NamedTable {
  std::string name;
  std::vector<std::vector<std::string>> rows;  // the first has the headings

  // Lines that begin and end with "|". REQUIRES: there are rows, and all of
  // them have as many cells as the first.
  std::string ToMarkdown() const;
};

// A part as "12.3" per cent, with "+" for one above 0 if kYes; "-" for nothing.
enum class Sign : uint8_t { kNo, kYes };
std::string PerCent(std::optional<double> part, Sign sign = Sign::kNo);
// "65,536".
std::string WithCommas(uint64_t number);

// The text of `page` with each table after the line that names it, in place of
// the table that was there:
//
//   <!-- table: NAME -->
//
// INVALID_ARGUMENT if a line names no table of `tables`, or if a table is not
// named by exactly one line.
absl::StatusOr<std::string> WithTables(const std::string& page,
                                       const std::vector<NamedTable>& tables);

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_MARKDOWN_TABLE_H_
