// The tables of docs/working-set-accuracy.md.

#ifndef BENCH_WORKING_SET_ACCURACY_TABLES_H_
#define BENCH_WORKING_SET_ACCURACY_TABLES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/working_set_accuracy/markdown_table.h"

namespace mmu::bench {

// Measures everything and makes the tables, which are the same each time.
// `traces` is the path of the folder of the recordings. Fails if one of them
// cannot be read.
absl::StatusOr<std::vector<NamedTable>> MakeAccuracyTables(
    const std::string& traces);

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_TABLES_H_
