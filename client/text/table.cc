#include "client/text/table.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace mmud::client {
namespace {

// The characters of UTF-8 text, which can have more bytes than characters.
size_t Width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  });
}

void AppendLine(const std::string& line, std::string* out) {
  const size_t last = line.find_last_not_of(' ');
  absl::StrAppend(out, line.substr(0, last == line.npos ? 0 : last + 1), "\n");
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<std::string> titles;
  std::vector<size_t> widths;
  for (const Column& column : columns_) {
    titles.push_back(column.title);
    widths.push_back(Width(column.title));
  }
  for (const std::vector<std::string>& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], Width(row[i]));
    }
  }
  std::string out;
  const auto add = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) line += "  ";
      const std::string padding(widths[i] - Width(cells[i]), ' ');
      line += columns_[i].align == Align::kRight ? padding + cells[i]
                                                 : cells[i] + padding;
    }
    AppendLine(line, &out);
  };
  add(titles);
  for (const std::vector<std::string>& row : rows_) add(row);
  return out;
}

void KeyValues::Add(std::string key, std::string value) {
  lines_.emplace_back(std::move(key), std::move(value));
}

std::string KeyValues::ToString() const {
  size_t width = 0;
  for (const auto& [key, value] : lines_) width = std::max(width, Width(key));
  std::string out;
  for (const auto& [key, value] : lines_) {
    AppendLine(
        absl::StrCat(key, ":", std::string(width - Width(key) + 2, ' '), value),
        &out);
  }
  return out;
}

}  // namespace mmud::client
