// Builds prometheus-cpp's metric families.

#ifndef SERVER_METRICS_METRIC_WRITER_H_
#define SERVER_METRICS_METRIC_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "mmu_core/stats/latency_histogram.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"

namespace mmud {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// The largest bucket of a histogram.
enum class Buckets : uint8_t {
  kStep,  // to 4 s: a wait, a hold, a flush, a fault
  kWork,  // to more than an hour: work that a caller waits for
};

// Writes families in the order in which they are begun; a family without series
// is left out. Thread-compatible.
class MetricWriter {
 public:
  // Begins a family. Its name gets the prefix "mmud_", unless it is a common
  // name that begins with "process_" or "grpc_".
  void Begin(const std::string& name, prometheus::MetricType type,
             const std::string& help);
  void Counter(const std::string& name, const std::string& help) {
    Begin(name, prometheus::MetricType::Counter, help);
  }
  void Gauge(const std::string& name, const std::string& help) {
    Begin(name, prometheus::MetricType::Gauge, help);
  }
  void Histogram(const std::string& name, const std::string& help) {
    Begin(name, prometheus::MetricType::Histogram, help);
  }

  // Adds a series to the family begun last, of that family's type.
  void Add(double value, MetricLabels labels = {});
  // As Add, but adds nothing while the value is 0: for families with so many
  // combinations of labels that most never occur.
  void AddIfCounted(double value, MetricLabels labels) {
    if (value != 0) Add(value, std::move(labels));
  }
  // Adds a histogram. It has a dozen series or more, so it appears only with
  // its first observation.
  void Add(const mmu::LatencySnapshot& histogram, MetricLabels labels = {},
           Buckets buckets = Buckets::kStep);

  std::vector<prometheus::MetricFamily> Take();

 private:
  prometheus::ClientMetric& NewMetric(MetricLabels labels);

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace mmud

#endif  // SERVER_METRICS_METRIC_WRITER_H_
