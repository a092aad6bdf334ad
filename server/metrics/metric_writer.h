// Builds prometheus-cpp's metric families.

#ifndef SERVER_METRICS_METRIC_WRITER_H_
#define SERVER_METRICS_METRIC_WRITER_H_

#include <string>
#include <utility>
#include <vector>

#include "mmu_core/stats/latency_histogram.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"

namespace mmud {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Families in the order they are begun. Thread-compatible.
class MetricWriter {
 public:
  // Begins a family; its name gets the prefix "mmud_".
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

  // A series of the family begun last, of its type.
  void Add(double value, MetricLabels labels = {});
  void Add(const mmu::LatencySnapshot& histogram, MetricLabels labels = {});

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& NewMetric(MetricLabels labels);

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace mmud

#endif  // SERVER_METRICS_METRIC_WRITER_H_
