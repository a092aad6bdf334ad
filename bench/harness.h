// What every row of mmu_bench has in common: repetitions, medians, the limit
// that stands beside each figure, and the report.
//
// google-benchmark measures one thing at a time and rebuilds nothing between
// repetitions. Here a figure is worth nothing without its limit, measured in
// the same run on the same tables, and almost every repetition must put the
// tables back first. So the loops are our own; of google-benchmark only
// DoNotOptimize is used, which keeps a measured loop from being removed.

#ifndef BENCH_HARNESS_H_
#define BENCH_HARNESS_H_

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

namespace mmu::bench {

// Whether a small ratio of value to limit is good, or a large one.
enum class Goal : uint8_t { kAtMost, kAtLeast };

// A figure and its limit, both in `unit`.
struct Measured {
  std::string unit;
  double value = 0;
  double limit = 0;
};

// A line of the report.
struct Row : Measured {
  std::string name;
  double goal = 0;  // of value / limit
  Goal direction = Goal::kAtMost;

  double Ratio() const { return value / limit; }
  bool Met() const {
    return direction == Goal::kAtMost ? Ratio() <= goal : Ratio() >= goal;
  }
};

// How much to do.
struct Effort {
  int repetitions = 9;
  bool quick = false;

  // `full` units of work, or a sixteenth of it for a look whether it works.
  uint64_t Scale(uint64_t full) const { return quick ? full / 16 : full; }
};

// What a row measures, and the goal for value / limit.
struct Benchmark {
  std::string name;
  double goal;
  Goal direction;
  std::function<Measured(const Effort&)> run;
};

// Ends the program: a figure of work that was not done is no figure.
[[noreturn]] void WorkNotDone(const char* condition, const char* file,
                              int line);
#define BENCH_CHECK(condition)        \
  ((condition) ? static_cast<void>(0) \
               : ::mmu::bench::WorkNotDone(#condition, __FILE__, __LINE__))

// Nanoseconds that this thread spends on a processor for `fn`. Not those during
// which others had it: a long pass would meet more of them than a short one.
// What `fn` sleeps is not in it; no operation measured by it sleeps.
double Nanos(absl::FunctionRef<void()> fn);
// Nanoseconds that pass during `fn`, for what several threads do together.
double WallNanos(absl::FunctionRef<void()> fn);

double Median(std::vector<double> values);

// A value and its limit, as medians.
struct Pair {
  double value = 0;
  double limit = 0;
};

// Runs `value` and `limit` in turn, so that what else happens on the machine
// meets both. Each returns what it measured and puts things back by itself. One
// more round before them warms caches up and is not counted.
Pair Alternate(const Effort& effort, absl::FunctionRef<double()> value,
               absl::FunctionRef<double()> limit);

std::string FormatTable(const std::vector<Row>& rows);
std::string FormatJson(const std::vector<Row>& rows);

}  // namespace mmu::bench

#endif  // BENCH_HARNESS_H_
