#include "server/metrics/metric_writer.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "mmu_core/stats/latency_histogram.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"

namespace mmud {

void MetricWriter::Begin(const std::string& name, prometheus::MetricType type,
                         const std::string& help) {
  prometheus::MetricFamily& family = families_.emplace_back();
  family.name = "mmud_" + name;
  family.help = help;
  family.type = type;
}

void MetricWriter::Add(double value, MetricLabels labels) {
  prometheus::ClientMetric& metric = NewMetric(std::move(labels));
  if (families_.back().type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

void MetricWriter::Add(const mmu::LatencySnapshot& histogram,
                       MetricLabels labels) {
  prometheus::ClientMetric::Histogram& out =
      NewMetric(std::move(labels)).histogram;
  const auto counts = histogram.counts();
  uint64_t cumulative = 0;
  for (int i = 0; i <= mmu::kLatencyBounds; ++i) {
    cumulative += counts[i];
    prometheus::ClientMetric::Bucket& bucket = out.bucket.emplace_back();
    bucket.cumulative_count = cumulative;
    bucket.upper_bound =
        i < mmu::kLatencyBounds
            ? static_cast<double>(mmu::LatencyBoundNanos(i)) / 1e9
            : std::numeric_limits<double>::infinity();
  }
  out.sample_count = cumulative;
  out.sample_sum = static_cast<double>(histogram.sum_nanos) * 1e-9;
}

prometheus::ClientMetric& MetricWriter::NewMetric(MetricLabels labels) {
  prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
  for (auto& [name, value] : labels) {
    prometheus::ClientMetric::Label& label = metric.label.emplace_back();
    label.name = std::move(name);
    label.value = std::move(value);
  }
  return metric;
}

}  // namespace mmud
