#include "server/metrics/metric_writer.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "mmu_core/stats/latency_histogram.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"

namespace mmud {

void MetricWriter::Begin(const std::string& name, prometheus::MetricType type,
                         const std::string& help) {
  prometheus::MetricFamily& family = families_.emplace_back();
  family.name =
      absl::StartsWith(name, "process_") || absl::StartsWith(name, "grpc_")
          ? name
          : "mmud_" + name;
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
                       MetricLabels labels, Buckets buckets) {
  if (histogram.count == 0) return;
  prometheus::ClientMetric::Histogram& out =
      NewMetric(std::move(labels)).histogram;
  const auto counts = histogram.counts();
  const int bounds =
      buckets == Buckets::kStep ? mmu::kStepLatencyBounds : mmu::kLatencyBounds;
  uint64_t cumulative = 0;
  for (int i = 0; i < bounds; ++i) {
    cumulative += counts[i];
    prometheus::ClientMetric::Bucket& bucket = out.bucket.emplace_back();
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = static_cast<double>(mmu::LatencyBoundNanos(i)) / 1e9;
  }
  for (int i = bounds; i <= mmu::kLatencyBounds; ++i) cumulative += counts[i];
  prometheus::ClientMetric::Bucket& last = out.bucket.emplace_back();
  last.cumulative_count = cumulative;
  last.upper_bound = std::numeric_limits<double>::infinity();
  out.sample_count = cumulative;
  out.sample_sum = static_cast<double>(histogram.sum_nanos) * 1e-9;
}

std::vector<prometheus::MetricFamily> MetricWriter::Take() {
  std::vector<prometheus::MetricFamily> families;
  families.swap(families_);
  std::erase_if(families, [](const prometheus::MetricFamily& family) {
    return family.metric.empty();
  });
  return families;
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
