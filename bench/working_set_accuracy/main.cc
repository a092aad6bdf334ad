// Measures how accurate generations are, and prints the tables of
// docs/working-set-accuracy.md or writes them into it.

#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/working_set_accuracy/markdown_table.h"
#include "bench/working_set_accuracy/tables.h"

namespace mmu::bench {
namespace {

constexpr char kHelp[] =
    "working_set_accuracy [--update FILE]\n"
    "\n"
    "Measures how accurate the generations of a VM's working set are, and\n"
    "prints the tables. Each run prints the same. The current folder must "
    "have\n"
    "the folder traces/.\n"
    "\n"
    "  --update FILE  writes the tables into the page FILE instead, after the\n"
    "                 lines <!-- table: NAME -->; an absolute path, if\n"
    "                 `bazel run` runs the program\n";

absl::Status Update(const std::string& path,
                    const std::vector<NamedTable>& tables) {
  std::stringstream page;
  if (!(page << std::ifstream(path).rdbuf())) {
    return absl::NotFoundError(path + ": cannot be read");
  }
  const absl::StatusOr<std::string> text = WithTables(page.str(), tables);
  if (!text.ok()) return text.status();
  std::ofstream out(path);
  out << *text << std::flush;
  return out ? absl::OkStatus()
             : absl::UnavailableError(path + ": cannot be written");
}

absl::Status PrintOrUpdate(const std::string& path) {
  const auto tables = MakeAccuracyTables("traces");
  if (!tables.ok()) return tables.status();
  if (!path.empty()) return Update(path, *tables);
  for (const NamedTable& table : *tables) {
    std::cout << table.name << "\n\n" << table.ToMarkdown() << "\n";
  }
  return absl::OkStatus();
}

int Main(const std::vector<std::string>& args) {
  if (args == std::vector<std::string>{"--help"}) {
    std::cout << kHelp;
    return 0;
  }
  if (!args.empty() && (args.size() != 2 || args[0] != "--update")) {
    std::cerr << kHelp;
    return 2;
  }
  const absl::Status status = PrintOrUpdate(args.empty() ? "" : args[1]);
  if (status.ok()) return 0;
  std::cerr << "working_set_accuracy: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace mmu::bench

int main(int argc, char** argv) {
  return mmu::bench::Main({argv + 1, argv + argc});
}
