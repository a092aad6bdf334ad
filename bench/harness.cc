#include "bench/harness.h"

#include <time.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace mmu::bench {
namespace {

double ClockNanos(clockid_t clock) {
  timespec now;
  BENCH_CHECK(clock_gettime(clock, &now) == 0);
  return static_cast<double>(now.tv_sec) * 1e9 +
         static_cast<double>(now.tv_nsec);
}

double NanosBy(clockid_t clock, absl::FunctionRef<void()> fn) {
  const double begin = ClockNanos(clock);
  fn();
  return ClockNanos(clock) - begin;
}

}  // namespace

double Nanos(absl::FunctionRef<void()> fn) {
  return NanosBy(CLOCK_THREAD_CPUTIME_ID, fn);
}

double WallNanos(absl::FunctionRef<void()> fn) {
  return NanosBy(CLOCK_MONOTONIC, fn);
}

void WorkNotDone(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: the measured work was not done: %s\n", file,
               line, condition);
  std::abort();
}

double Median(std::vector<double> values) {
  BENCH_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle - 1] + values[middle]) / 2;
}

Pair Alternate(const Effort& effort, absl::FunctionRef<double()> value,
               absl::FunctionRef<double()> limit) {
  std::vector<double> values;
  std::vector<double> limits;
  for (int i = 0; i <= effort.repetitions; ++i) {
    const double v = value();
    const double l = limit();
    if (i == 0) continue;
    values.push_back(v);
    limits.push_back(l);
  }
  return {Median(std::move(values)), Median(std::move(limits))};
}

std::string FormatTable(const std::vector<Row>& rows) {
  std::string text =
      absl::StrFormat("%-20s %12s %-9s %12s %8s %9s  %s\n", "name", "value",
                      "unit", "limit", "ratio", "goal", "met");
  for (const Row& row : rows) {
    absl::StrAppendFormat(
        &text, "%-20s %12.6g %-9s %12.6g %8.2f %9s  %s\n", row.name, row.value,
        row.unit, row.limit, row.Ratio(),
        absl::StrFormat("%s %.3g",
                        row.direction == Goal::kAtMost ? "<=" : ">=", row.goal),
        row.Met() ? "yes" : "no");
  }
  return text;
}

// No name or unit of a row has a character that JSON must escape.
std::string FormatJson(const std::vector<Row>& rows) {
  const std::string body =
      absl::StrJoin(rows, ",\n", [](std::string* out, const Row& row) {
        absl::StrAppendFormat(
            out,
            "  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", "
            "\"limit\": %.6g, \"ratio\": %.4g, \"goal\": %.3g, "
            "\"goal_is\": \"%s\"}",
            row.name, row.value, row.unit, row.limit, row.Ratio(), row.goal,
            row.direction == Goal::kAtMost ? "at_most" : "at_least");
      });
  return absl::StrCat("[\n", body, "\n]\n");
}

}  // namespace mmu::bench
