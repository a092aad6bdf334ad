#include "server/metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

double ToDouble(uint64_t value) { return static_cast<double>(value); }

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// When the machine started, in Unix time; nullopt if the system does not tell.
absl::optional<uint64_t> BootSeconds() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    uint64_t seconds = 0;
    if (words.size() == 2 && words[0] == "btime" &&
        absl::SimpleAtoi(words[1], &seconds)) {
      return seconds;
    }
  }
  return absl::nullopt;
}

// The count leaves out the descriptor that is used for counting.
absl::optional<uint64_t> OpenFds() {
  std::error_code error;
  uint64_t count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end;
       !error && it != end; it.increment(error)) {
    ++count;
  }
  if (error || count == 0) return absl::nullopt;
  return count - 1;
}

absl::optional<uint64_t> SoftLimit(int resource) {
  rlimit limit = {};
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 ||
      limit.rlim_cur == RLIM_INFINITY) {
    return absl::nullopt;
  }
  return limit.rlim_cur;
}

void AddIfTold(absl::optional<uint64_t> value, MetricWriter* w) {
  if (value.has_value()) w->Add(ToDouble(*value));
}

}  // namespace

absl::optional<ProcessStat> ParseProcessStat(absl::string_view text) {
  // The second field is the program's name in brackets and may contain any
  // character.
  const size_t bracket = text.rfind(')');
  if (bracket == absl::string_view::npos) return absl::nullopt;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::StripAsciiWhitespace(text.substr(bracket + 1)), ' ');
  // Field numbers of proc(5), which count from 1; fields[0] is the third field.
  const auto number = [&fields](size_t field, uint64_t* out) {
    return field - 3 < fields.size() &&
           absl::SimpleAtoi(fields[field - 3], out);
  };
  ProcessStat stat;
  uint64_t user = 0;
  uint64_t system = 0;
  if (!number(14, &user) || !number(15, &system) ||
      !number(20, &stat.threads) || !number(22, &stat.start_ticks) ||
      !number(23, &stat.virtual_bytes) || !number(24, &stat.resident_pages)) {
    return absl::nullopt;
  }
  stat.cpu_ticks = user + system;
  return stat;
}

void WriteProcessMetrics(MetricWriter* writer) {
  MetricWriter& w = *writer;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (const auto stat = ParseProcessStat(ReadAll("/proc/self/stat"))) {
    w.Counter("process_cpu_seconds_total",
              "Processor time that the process took.");
    w.Add(ToDouble(stat->cpu_ticks) / ticks);
    w.Gauge("process_resident_memory_bytes", "Memory that is resident.");
    w.Add(ToDouble(stat->resident_pages) *
          static_cast<double>(sysconf(_SC_PAGESIZE)));
    w.Gauge("process_virtual_memory_bytes", "Address space in use.");
    w.Add(ToDouble(stat->virtual_bytes));
    w.Gauge("process_threads", "Threads.");
    w.Add(ToDouble(stat->threads));
    if (const absl::optional<uint64_t> boot = BootSeconds()) {
      w.Gauge("process_start_time_seconds",
              "When the process started, Unix time.");
      w.Add(ToDouble(*boot) + ToDouble(stat->start_ticks) / ticks);
    }
  }
  w.Gauge("process_open_fds", "Open file descriptors.");
  AddIfTold(OpenFds(), &w);
  w.Gauge("process_max_fds", "Limit on open file descriptors.");
  AddIfTold(SoftLimit(RLIMIT_NOFILE), &w);
  w.Gauge("process_virtual_memory_max_bytes",
          "Limit on the address space; absent without one.");
  AddIfTold(SoftLimit(RLIMIT_AS), &w);
}

}  // namespace mmud
