// The common parts of all rows of mmu_bench: repetitions, medians, the limit
// beside each figure, and the report.
//
// google-benchmark measures one function at a time and rebuilds nothing between
// repetitions. Here each figure needs its limit, measured in the same run on
// the same tables, and almost every repetition must restore the tables first.
// So the loops are our own. Of google-benchmark only DoNotOptimize is used,
// which keeps the compiler from removing a measured loop.

#ifndef BENCH_HARNESS_H_
#define BENCH_HARNESS_H_

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

namespace mmu::bench {

// Whether the ratio of value to limit should be at most or at least the goal.
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

// The number of repetitions and the amount of work of each.
struct Effort {
  int repetitions = 9;
  bool quick = false;

  // `full` units of work, or a sixteenth of them for a quick check.
  uint64_t Scale(uint64_t full) const { return quick ? full / 16 : full; }
};

// A row: its name, the goal for value / limit, and its measurement.
struct Benchmark {
  std::string name;
  double goal;
  Goal direction;
  std::function<Measured(const Effort&)> run;
};

// Ends the program. To be called if the measured work was not done, since its
// figure is then meaningless.
[[noreturn]] void WorkNotDone(const char* condition, const char* file,
                              int line);
#define BENCH_CHECK(condition)        \
  ((condition) ? static_cast<void>(0) \
               : ::mmu::bench::WorkNotDone(#condition, __FILE__, __LINE__))

// Processor time of this thread for `fn`, in nanoseconds. Excludes time during
// which the thread was preempted, since a long pass is preempted more often
// than a short one. Excludes sleeps of `fn`; no operation measured in this way
// sleeps.
double Nanos(absl::FunctionRef<void()> fn);
// Wall time of `fn` in nanoseconds, for the work of several threads together.
double WallNanos(absl::FunctionRef<void()> fn);

double Median(std::vector<double> values);

// A value and its limit, as medians.
struct Pair {
  double value = 0;
  double limit = 0;
};

// Runs `value` and `limit` in turn, so that other work on the machine affects
// both. Each returns its measurement and restores its state. One additional
// round before them warms up the caches and is not counted.
Pair Alternate(const Effort& effort, absl::FunctionRef<double()> value,
               absl::FunctionRef<double()> limit);

std::string FormatTable(const std::vector<Row>& rows);
std::string FormatJson(const std::vector<Row>& rows);

}  // namespace mmu::bench

#endif  // BENCH_HARNESS_H_
