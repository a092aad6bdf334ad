// Tables for people: columns as wide as their longest cell.

#ifndef CLIENT_TEXT_TABLE_H_
#define CLIENT_TEXT_TABLE_H_

#include <string>
#include <utility>
#include <vector>

namespace mmud::client {

enum class Align { kLeft, kRight };

// Thread-compatible.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);

  // Adds a row. Missing cells are empty; REQUIRES: no more cells than columns.
  void AddRow(std::vector<std::string> cells);

  bool empty() const { return rows_.empty(); }

  // One line per row under one line of titles, two blanks between columns,
  // none at the end of a line.
  std::string ToString() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name:  value" lines with the values below each other. Thread-compatible.
class KeyValues {
 public:
  void Add(std::string key, std::string value);
  std::string ToString() const;

 private:
  std::vector<std::pair<std::string, std::string>> lines_;
};

}  // namespace mmud::client

#endif  // CLIENT_TEXT_TABLE_H_
