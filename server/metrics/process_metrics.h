// The metrics of the process itself, under the names that every Prometheus
// client library uses.

#ifndef SERVER_METRICS_PROCESS_METRICS_H_
#define SERVER_METRICS_PROCESS_METRICS_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "server/metrics/metric_writer.h"

namespace mmud {

// The fields of /proc/PID/stat in use. A value.
struct ProcessStat {
  uint64_t cpu_ticks = 0;  // in user and kernel mode
  uint64_t threads = 0;
  uint64_t start_ticks = 0;  // since the machine started
  uint64_t virtual_bytes = 0;
  uint64_t resident_pages = 0;
};

// Parses the text; nullopt if it does not have the format of proc(5).
absl::optional<ProcessStat> ParseProcessStat(absl::string_view text);

// Writes process_cpu_seconds_total, process_open_fds, ... of this process.
// Values that the system does not tell are left out.
void WriteProcessMetrics(MetricWriter* writer);

}  // namespace mmud

#endif  // SERVER_METRICS_PROCESS_METRICS_H_
